//! Garbage collection at the worst moment: between the requests of a push or pull.

use std::{sync::Arc, time::Duration};

use crate::harness::OverTcp;
use async_trait::async_trait;
use http::{Method, StatusCode};
use kuik_core::{
    content::{
        ByteRange, Cached, ContentSource, ContentStore, Digest, Freshness, Manifest, MediaType,
        RegistryStore, SourceError, TagOrDigest,
    },
    forward,
    reference::{RepositoryName, Tag},
};
use kuik_proxy::{
    maintenance::gc::{Collector, GcOptions, GcReport, LeasedStore, Leases},
    pull_through::{InvalidatingStore, PullThrough, Revalidate},
    registry::push::{RegistryMetrics, RegistryOptions, RegistryService},
    route::Names,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
};
use kuik_testkit::{Gate, MemoryStore, SampleImage, ScriptedRegistry};
use tokio::sync::Notify;

/// A store that pauses before it removes bytes, or before it stores a manifest.
#[derive(Debug, Clone)]
struct Stops {
    store: MemoryStore,
    before_removing: Gate,
    before_keeping: Gate,
    /// Pauses at the check for one digest.
    before_finding: Option<(Digest, Gate)>,
    stopped: Arc<Notify>,
}

impl Stops {
    fn nowhere() -> Self {
        let (before_removing, before_keeping) = (Gate::new(), Gate::new());
        before_removing.open();
        before_keeping.open();
        Self {
            store: MemoryStore::new(),
            before_removing,
            before_keeping,
            before_finding: None,
            stopped: Arc::default(),
        }
    }

    async fn at(&self, gate: &Gate) {
        self.stopped.notify_one();
        gate.clone().opened().await;
    }
}

#[async_trait]
impl ContentSource for Stops {
    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        if let Some((stop, gate)) = &self.before_finding
            && stop == digest
        {
            self.at(gate).await;
        }
        self.store.blob_size(repository, digest).await
    }

    forward!(this => &this.store; resolve, manifest, blob, tags, referrers);
}

#[async_trait]
impl ContentStore for Stops {
    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        self.at(&self.before_keeping).await;
        self.store.put_manifest(repository, manifest, tag).await
    }

    forward!(this => &this.store; write_blob, link_blob, has_blob, read_stored, check_writable);
}

#[async_trait]
impl RegistryStore for Stops {
    async fn remove_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        self.at(&self.before_removing).await;
        self.store.remove_blob(digest).await
    }

    forward!(this => &this.store;
        delete_tag, delete_manifest, unlink_blob, start_upload, upload, purge_uploads, repositories, manifests,
        linked_blobs, blobs, quarantine_blob, metadata, put_metadata, all_metadata, free_bytes);
}

/// A registry over a store that pauses, and its collector.
struct Registry {
    front: OverTcp,
    store: Stops,
    collector: Collector,
}

impl Registry {
    async fn over(store: Stops) -> Self {
        let (leases, mut options) = (Leases::default(), ProxyOptions::default());
        options.names = Names::Local;
        let leased = LeasedStore::new(Arc::new(store.clone()) as Arc<dyn RegistryStore>, leases.clone());
        let pull = ProxyService::new(Arc::new(leased.clone()), options, ProxyMetrics::default());
        let service =
            RegistryService::new(leased, pull, None, RegistryOptions::default(), RegistryMetrics::default());
        let collector = Collector::new(Arc::new(store.clone()), leases);
        Self { front: OverTcp::start(service).await, store, collector }
    }

    async fn push_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let path = format!("/v2/app/blobs/uploads/?digest={digest}");
        let pushed = self.front.send(Method::POST, &path, &[], bytes.to_vec()).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{pushed:?}");
        digest
    }

    async fn put(&self, manifest: &Manifest, tag: &str) -> (StatusCode, String) {
        let headers = [("content-type", MediaType::OCI_MANIFEST.as_str())];
        let path = format!("/v2/app/manifests/{tag}");
        let put = self.front.send(Method::PUT, &path, &headers, manifest.bytes().clone()).await;
        (put.status, put.code())
    }

    async fn collect(&self, grace: Duration) -> GcReport {
        collect(&self.collector, grace).await
    }
}

async fn collect(collector: &Collector, grace: Duration) -> GcReport {
    let mut options = GcOptions::default();
    (options.grace, options.delete_untagged) = (grace, true);
    collector.run(&options, |_| {}).await.unwrap()
}

fn image_of(config: &Digest) -> Manifest {
    let media_type = MediaType::OCI_CONFIG;
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{media_type}","digest":"{config}","size":5}},"layers":[]}}"#
    );
    Manifest::new(Some(&MediaType::OCI_MANIFEST), text.into()).unwrap()
}

#[tokio::test]
async fn manifest_push_during_blob_removal_is_refused_and_can_be_retried() {
    let mut store = Stops::nowhere();
    store.before_removing = Gate::new();
    let registry = Registry::over(store).await;
    let image = image_of(&registry.push_blob(b"hello").await);
    let (report, put) = tokio::join!(registry.collect(Duration::ZERO), async {
        registry.store.stopped.notified().await;
        let mut put = Box::pin(registry.put(&image, "v1"));
        assert!(futures::poll!(&mut put).is_pending(), "it waits for the removal");
        registry.store.before_removing.open();
        put.await
    });
    assert_eq!(report.removed, 1);
    // Refused with the specification's code if the removal came first: no incomplete manifest is stored.
    assert_eq!(put, (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    registry.push_blob(b"hello").await;
    assert_eq!(registry.put(&image, "v1").await.0, StatusCode::CREATED);
    assert_eq!(registry.collect(Duration::ZERO).await.removed, 0);
}

#[tokio::test]
async fn blob_found_for_a_manifest_is_kept() {
    let mut store = Stops::nowhere();
    store.before_keeping = Gate::new();
    let registry = Registry::over(store).await;
    let config = registry.push_blob(b"hello").await;
    let image = image_of(&config);
    let (put, ()) = tokio::join!(registry.put(&image, "v1"), async {
        registry.store.stopped.notified().await;
        // The manifest does not exist yet, so only the push keeps the blob.
        assert_eq!(registry.collect(Duration::ZERO).await.removed, 0);
        registry.store.before_keeping.open();
    });
    assert_eq!(put.0, StatusCode::CREATED, "{put:?}");
    assert_eq!(registry.store.store.has_blob(&config).await.unwrap(), Some(5));
    assert_eq!(registry.collect(Duration::ZERO).await.removed, 0);
}

#[tokio::test]
async fn blob_found_is_kept_while_another_is_checked() {
    let (mut store, gate, layer) = (Stops::nowhere(), Gate::new(), Digest::sha256(b"layer"));
    store.before_finding = Some((layer.clone(), gate.clone()));
    let registry = Registry::over(store).await;
    let config = registry.push_blob(b"hello").await;
    registry.push_blob(b"layer").await;
    let entry = |digest: &Digest| format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":5}}"#);
    let text = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, entry(&config), entry(&layer));
    let image = Manifest::new(Some(&MediaType::OCI_MANIFEST), text.into()).unwrap();
    let (put, ()) = tokio::join!(registry.put(&image, "v1"), async {
        registry.store.stopped.notified().await;
        assert_eq!(registry.collect(Duration::ZERO).await.removed, 0);
        gate.open();
    });
    assert_eq!(put.0, StatusCode::CREATED, "{put:?}");
    assert_eq!(registry.collect(Duration::ZERO).await.removed, 0);
}

#[tokio::test]
async fn recently_requested_manifest_is_kept_with_its_references() {
    let registry = Registry::over(Stops::nowhere()).await;
    let config = registry.push_blob(b"hello").await;
    let image = image_of(&config);
    assert_eq!(registry.put(&image, "v1").await.0, StatusCode::CREATED);
    // A client has the manifest when its tag is deleted, and will fetch its blobs.
    assert_eq!(registry.front.ask(Method::GET, "/v2/app/manifests/v1").await.status, StatusCode::OK);
    assert_eq!(registry.front.ask(Method::DELETE, "/v2/app/manifests/v1").await.status, StatusCode::ACCEPTED);
    registry.store.store.age(Duration::from_secs(7200));
    assert_eq!(registry.collect(Duration::from_secs(3600)).await.removed, 0);
    let blob = format!("/v2/app/blobs/{config}");
    assert_eq!(registry.front.ask(Method::GET, &blob).await.body, b"hello"[..]);
    assert_eq!(registry.collect(Duration::ZERO).await.removed, 2);
    assert_eq!(registry.front.ask(Method::GET, &blob).await.status, StatusCode::NOT_FOUND);
}

/// The manifest is stored before its blobs, and the collector runs in between, without grace.
#[tokio::test]
async fn pull_through_cache_succeeds_during_collection() {
    let upstream = ScriptedRegistry::start().await.unwrap();
    let image = SampleImage::small(5);
    upstream.add_image("app", "v1", &image);
    let (store, leases) = (MemoryStore::new(), Leases::default());
    let source = Arc::new(crate::harness::client_of(&upstream, crate::harness::SHORT));
    let leased = Arc::new(LeasedStore::new(store.clone(), leases.clone()));
    let cache = PullThrough::new(leased, source, crate::harness::options(Revalidate::Never));
    let collector =
        Collector::new(Arc::new(InvalidatingStore::new(store.clone(), Some(cache.clone()))), leases);
    let repository = upstream.repository("app").unwrap();

    for manifest in image.manifests().iter().chain([image.index()]) {
        let at = TagOrDigest::Digest(manifest.digest().clone());
        let pulled = cache.manifest(&repository, &at, Freshness::Cached).await.unwrap().content;
        assert_eq!(pulled, *manifest);
        collect(&collector, Duration::ZERO).await;
    }
    for (digest, bytes) in image.blobs() {
        for _ in 0..2 {
            assert_eq!(blob(&cache, &repository, digest).await, *bytes);
            collect(&collector, Duration::ZERO).await;
        }
    }
    cache.drain().await;

    // Pulled by its tag, all of it is kept, although its platforms have no tags.
    cache.forget(&repository);
    let by_tag = TagOrDigest::Tag("v1".parse().unwrap());
    let manifests = image.manifests().iter().map(|manifest| TagOrDigest::Digest(manifest.digest().clone()));
    for at in [by_tag].into_iter().chain(manifests) {
        cache.manifest(&repository, &at, Freshness::Cached).await.unwrap();
        cache.drain().await;
        collect(&collector, Duration::ZERO).await;
    }
    for (digest, bytes) in image.blobs() {
        assert_eq!(blob(&cache, &repository, digest).await, *bytes);
    }
    cache.drain().await;
    let report = collect(&collector, Duration::ZERO).await;
    let parts = image.blobs().len() + image.manifests().len() + 1;
    assert_eq!((report.removed, report.kept), (0, parts as u64));
}

async fn blob(cache: &PullThrough, repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
    let blob = cache.blob(repository, digest, ByteRange::Full).await.unwrap().content;
    let (bytes, error) = crate::harness::read(blob).await;
    assert!(error.is_none(), "{error:?}");
    bytes
}
