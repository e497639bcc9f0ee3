//! Blob redirects: clients are redirected if enabled and if the source provides a URL; otherwise the proxy serves the
//! blob.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use kuik_core::{
    content::{
        BlobLocation, ByteRange, ContentSource, ContentStore, Digest, Freshness, RegistryStore, SourceError,
        SourceErrorKind, TagOrDigest, Verifier,
    },
    forward,
    reference::RepositoryName,
};
use kuik_proxy::{
    maintenance::gc::{Collector, GcOptions, LeasedStore, Leases},
    pull_through::{PullThrough, PullThroughOptions},
    route::Names,
    service::{ProxyBody, ProxyMetrics, ProxyOptions, ProxyService},
};
use kuik_testkit::{Behavior, Gate, MemoryStore, Rule, SampleImage, ScriptedRegistry, Target};

const URL: &str = "https://bucket.example/a?X-Signature=s3cret";
const FOR: Duration = Duration::from_secs(77);

/// The source's answer to a location request.
#[derive(Debug, Clone)]
enum Says {
    Where(BlobLocation),
    Nothing,
    Error,
    NothingEver,
}

impl Says {
    fn somewhere() -> Self {
        Self::Where(BlobLocation::new(URL, CONTENT.len() as u64).unwrap())
    }
}

/// A store with or without direct URLs for its blobs.
#[derive(Debug)]
struct Elsewhere {
    store: MemoryStore,
    says: Says,
    asked: Mutex<Vec<Duration>>,
}

#[async_trait]
impl ContentStore for Elsewhere {
    forward!(this => &this.store; write_blob, link_blob, has_blob, read_stored, put_manifest, check_writable);
}

#[async_trait]
impl ContentSource for Elsewhere {
    async fn blob_location(
        &self,
        _: &RepositoryName,
        _: &Digest,
        valid_for: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        self.asked.lock().unwrap().push(valid_for);
        match &self.says {
            Says::Where(location) => Ok(Some(location.clone())),
            Says::Nothing => Ok(None),
            Says::Error => Err(SourceError::new(SourceErrorKind::Storage, "sign")),
            Says::NothingEver => std::future::pending().await,
        }
    }

    forward!(this => &this.store; resolve, manifest, blob_size, blob, tags, referrers);
}

struct Proxy {
    source: Arc<Elsewhere>,
    service: ProxyService,
    path: String,
    digest: Digest,
}

const CONTENT: &[u8] = b"hello, blob";

async fn proxy(says: Says, redirects: Option<Duration>) -> Proxy {
    let (store, digest) = (MemoryStore::new(), Digest::sha256(CONTENT));
    let mut verifier = Verifier::new(&digest).unwrap();
    verifier.update(CONTENT);
    let mut writer = store.write_blob().await.unwrap();
    writer.append(&[CONTENT.into()]).await.unwrap();
    let app = RepositoryName::local("app").unwrap();
    writer.publish(verifier.finish().unwrap(), &[app]).await.unwrap();
    let source = Arc::new(Elsewhere { store, says, asked: Mutex::default() });
    let mut options = ProxyOptions::default();
    options.names = Names::Local;
    options.redirects = redirects;
    let service = ProxyService::new(source.clone(), options, ProxyMetrics::default());
    Proxy { source, service, path: format!("/v2/app/blobs/{digest}"), digest }
}

impl Proxy {
    async fn ask(&self, method: Method, with: &[(HeaderName, &str)]) -> Response<ProxyBody> {
        let mut headers = HeaderMap::new();
        for (name, value) in with {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        self.service.answer(method, self.path.parse().unwrap(), headers).await
    }

    fn asked(&self) -> Vec<Duration> {
        self.source.asked.lock().unwrap().clone()
    }
}

async fn is_served(response: Response<ProxyBody>) {
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key(header::LOCATION));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), CONTENT);
}

#[tokio::test]
async fn blob_get_is_redirected() {
    let proxy = proxy(Says::somewhere(), Some(FOR)).await;
    for with in [&[][..], &[(header::RANGE, "bytes=2-3")]] {
        let response = proxy.ask(Method::GET, with).await;
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(response.headers()[header::LOCATION], URL);
        assert_eq!(response.headers()["docker-content-digest"], proxy.digest.as_str());
        assert_eq!(response.headers()["cache-status"], "kuik; hit");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    assert_eq!(proxy.asked(), [FOR, FOR]);

    let size = proxy.ask(Method::HEAD, &[]).await;
    assert_eq!(
        (size.status(), &size.headers()[header::CONTENT_LENGTH]),
        (StatusCode::OK, &"11".parse().unwrap())
    );
    let held = format!("\"{}\"", proxy.digest);
    let unchanged = proxy.ask(Method::GET, &[(header::IF_NONE_MATCH, &held)]).await;
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(proxy.asked().len(), 2, "who needs no bytes is not sent for them");
}

#[tokio::test]
async fn redirects_are_disabled_by_default() {
    assert_eq!(ProxyOptions::default().redirects, None);
    let proxy = proxy(Says::somewhere(), None).await;
    is_served(proxy.ask(Method::GET, &[]).await).await;
    assert!(proxy.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn blob_is_served_directly_if_the_location_lookup_fails() {
    for says in [Says::Nothing, Says::Error, Says::NothingEver] {
        let proxy = proxy(says.clone(), Some(FOR)).await;
        is_served(proxy.ask(Method::GET, &[]).await).await;
        assert_eq!(proxy.asked().len(), 1, "{says:?}");
    }
}

/// No URL for a blob that is incomplete, or not as large as its manifest states.
#[tokio::test]
async fn filling_and_truncated_blobs_are_not_redirected() {
    let upstream = ScriptedRegistry::start().await.unwrap();
    let image = SampleImage::small(3);
    upstream.add_image("app", "v1", &image);
    let app = RepositoryName::new(&upstream.host(), "app").unwrap();
    let (digest, content) = image.blobs().iter().max_by_key(|(_, content)| content.len()).unwrap();
    for cut_off in [false, true] {
        let location = BlobLocation::new(URL, content.len() as u64 - u64::from(cut_off)).unwrap();
        let (store, asked) = (MemoryStore::new(), Mutex::default());
        let source = Arc::new(Elsewhere { store, says: Says::Where(location.clone()), asked });
        let client = Arc::new(crate::harness::client_of(&upstream, crate::harness::SHORT));
        let cache = PullThrough::new(source.clone(), client, PullThroughOptions::default());
        for manifest in image.manifests() {
            let at = TagOrDigest::Digest(manifest.digest().clone());
            cache.manifest(&app, &at, Freshness::Cached).await.unwrap();
        }
        let gate = Gate::new();
        let stall = Behavior::Stall { after: 1, until: gate.clone() };
        upstream.script(Rule::on(Target::Blob).path(digest.as_str()).times(1).does(stall));
        let blob = cache.blob(&app, digest, ByteRange::Full).await.unwrap();
        assert_eq!(cache.blob_location(&app, digest, FOR).await.unwrap(), None);
        assert!(source.asked.lock().unwrap().is_empty(), "it is being fetched");
        gate.open();
        blob.content.body.try_collect::<Vec<_>>().await.unwrap();
        cache.drain().await;
        let expected = (!cut_off).then_some(location);
        assert_eq!(cache.blob_location(&app, digest, FOR).await.unwrap(), expected);
    }
}

/// A redirected client has not opened the blob yet, and its download is not visible here.
#[tokio::test]
async fn redirected_blob_is_protected_from_collection() {
    let proxy = proxy(Says::somewhere(), None).await;
    let store: Arc<dyn RegistryStore> = Arc::new(proxy.source.store.clone());
    let leases = Leases::default();
    let leased = LeasedStore::new(proxy.source.clone(), leases.clone());
    proxy.source.store.age(Duration::from_secs(7200));
    let app = RepositoryName::local("app").unwrap();
    assert!(leased.blob_location(&app, &proxy.digest, FOR).await.unwrap().is_some());
    let collector = Collector::new(store, leases);
    let mut options = GcOptions::default();
    assert_eq!(collector.run(&options, |_| {}).await.unwrap().removed, 0);
    options.grace = Duration::ZERO;
    assert_eq!(collector.run(&options, |_| {}).await.unwrap().removed, 1);
}
