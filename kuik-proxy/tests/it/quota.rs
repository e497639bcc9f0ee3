//! Quota: eviction order, pulls under a full store, and the size limit.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::harness::{Reply, ask, client_of, open, options, service};
use futures::TryStreamExt as _;
use http::{Method, StatusCode};
use kuik_core::{
    client::Timeouts,
    content::{ContentSource as _, ContentStore as _, Manifest, RegistryStore, SourceErrorKind, TagOrDigest},
    reference::RepositoryName,
    retention::{ImageRetention, RetentionDocument},
};
use kuik_proxy::{
    maintenance::gc::{Collector, GcOptions, LeasedStore, Leases},
    maintenance::quota::{PullRecorder, Pulls, Quota, QuotaMetrics, QuotaStore, UnmanagedExpiry, Usage},
    maintenance::retention::RetentionIndex,
    pull_through::{PullThrough, Revalidate},
    service::ProxyService,
    store::FilesystemStore,
};
use kuik_testkit::{SampleImage, ScriptedRegistry};
use tempfile::TempDir;
use tokio::task::JoinHandle;

type Store = LeasedStore<QuotaStore<FilesystemStore>>;

/// A cache with a limit, and all parts of a registry.
struct Bounded {
    upstream: ScriptedRegistry,
    store: Store,
    cache: PullThrough,
    proxy: ProxyService,
    usage: Usage,
    pulls: Arc<Pulls>,
    retention: RetentionIndex,
    document: RetentionDocument,
    keeper: Option<JoinHandle<()>>,
    limit: u64,
    data: TempDir,
}

impl Drop for Bounded {
    fn drop(&mut self) {
        self.keeper.iter().for_each(JoinHandle::abort);
    }
}

impl Bounded {
    async fn start(limit: u64, evicts: bool) -> Self {
        Self::with_expiry(limit, evicts, None).await
    }

    async fn with_expiry(limit: u64, evicts: bool, expiry: Option<UnmanagedExpiry>) -> Self {
        let upstream = ScriptedRegistry::start().await.unwrap();
        let data = tempfile::tempdir().unwrap();
        let metrics = QuotaMetrics::default();
        let (usage, leases, pulls) =
            (Usage::new(Some(limit), metrics.clone()), Leases::default(), Arc::new(Pulls::default()));
        let limited = QuotaStore::new(FilesystemStore::clone(&open(data.path())), usage.clone());
        let store = LeasedStore::new(limited.clone(), leases.clone());
        let client = client_of(&upstream, Timeouts::default());
        let cache = PullThrough::new(Arc::new(store.clone()), Arc::new(client), options(Revalidate::Never));
        let (proxy, _) = service(PullRecorder::new(cache.clone(), pulls.clone()));
        let limited: Arc<dyn RegistryStore> = Arc::new(limited);
        let retention = RetentionIndex::new(limited.clone(), Default::default(), Default::default());
        retention.load().await.unwrap();
        let quota = Quota {
            store: limited.clone(),
            usage: usage.clone(),
            pulls: pulls.clone(),
            retention: retention.clone(),
            unmanaged: expiry,
            metrics,
            collector: Collector::new(limited, leases.clone()),
            leases,
            garbage: GcOptions::default(),
            settle: Duration::ZERO,
            cache: Some(cache.clone()),
        };
        let keeper = evicts.then(|| tokio::spawn(async { quota.run().await }));
        let document = RetentionDocument::default();
        Self { upstream, store, cache, proxy, usage, pulls, retention, document, keeper, limit, data }
    }

    fn image(&self, name: &str, seed: u64) -> SampleImage {
        let image = SampleImage::builder().seed(seed).platform("linux", "amd64").layer(1 << 20).build();
        self.upstream.add_image(name, "v1", &image);
        image
    }

    fn repository(&self, name: &str) -> RepositoryName {
        self.upstream.repository(name).unwrap()
    }

    async fn get(&self, name: &str, rest: &str) -> Reply {
        let path = format!("/v2/{}/{rest}", self.repository(name).encoded().unwrap());
        ask(&self.proxy, Method::GET, &path, &[]).await
    }

    /// Pulls an image as a client does, and verifies every byte.
    async fn pull(&self, name: &str, image: &SampleImage) {
        let tagged = self.get(name, "manifests/v1").await;
        assert_eq!((tagged.status, tagged.bytes()), (StatusCode::OK, image.index().bytes()), "{name}");
        for manifest in image.manifests() {
            let reply = self.get(name, &format!("manifests/{}", manifest.digest())).await;
            assert_eq!((reply.status, reply.bytes()), (StatusCode::OK, manifest.bytes()), "{name}");
        }
        for (digest, bytes) in image.blobs() {
            let reply = self.get(name, &format!("blobs/{digest}")).await;
            assert_eq!((reply.status, reply.bytes()), (StatusCode::OK, bytes), "{name}");
        }
        assert!(self.stored().await <= self.limit);
    }

    /// Waits until every pulled blob is stored or refused, and evictions are done.
    async fn settled(&self) {
        self.cache.drain().await;
        let settled = async {
            while self.usage.bytes() > self.limit - self.limit / 20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        crate::harness::within_reason(settled).await;
    }

    /// Counts the stored bytes.
    async fn stored(&self) -> u64 {
        let blobs: Vec<_> = self.store.blobs().try_collect().await.unwrap();
        blobs.iter().map(|blob| blob.size).sum()
    }

    /// Returns whether the store has a complete image.
    async fn has(&self, name: &str, image: &SampleImage) -> bool {
        let repository = self.repository(name);
        let at = TagOrDigest::Tag("v1".parse().unwrap());
        let tagged = self.store.manifest(&repository, &at, kuik_core::content::Freshness::Cached).await;
        let mut whole = tagged.is_ok();
        for digest in image.blobs().keys().chain(image.manifests().iter().map(Manifest::digest)) {
            whole &= self.store.has_blob(digest).await.unwrap().is_some();
        }
        whole
    }

    /// Adds an image to what the cluster says, and sends that.
    async fn report(&mut self, name: &str, retention: ImageRetention) {
        let at = TagOrDigest::Tag("v1".parse().unwrap());
        self.document.insert(&self.repository(name), &at, retention);
        self.retention.put(&"cluster".parse().unwrap(), &self.document.to_json()).await.unwrap();
    }
}

#[tokio::test]
async fn eviction_follows_retention_and_last_pull() {
    // Space for about six images of a mebibyte.
    let mut bounded = Bounded::start(6_500_000, true).await;
    let names: Vec<String> = (0..6).map(|number| format!("app-{number}")).collect();
    let images: Vec<SampleImage> = (0..6).map(|n| bounded.image(&names[n as usize], 100 + n)).collect();
    for place in 0..5 {
        bounded.pull(&names[place], &images[place]).await;
        bounded.settled().await;
    }
    // The first is in use, the last but one has expired, and the second was pulled last of all.
    bounded.report(&names[0], ImageRetention::in_use()).await;
    bounded.report(&names[3], ImageRetention::unused(Some(1))).await;
    let later = SystemTime::now() + Duration::from_secs(600);
    bounded.pulls.record(&bounded.repository(&names[1]), images[1].index().digest(), later);

    bounded.pull(&names[5], &images[5]).await;
    bounded.settled().await;
    let extra = bounded.image("extra", 200);
    bounded.pull("extra", &extra).await;
    bounded.settled().await;
    assert!(bounded.has(&names[0], &images[0]).await, "the image in use is kept");
    assert!(!bounded.has(&names[3], &images[3]).await, "the expired image is evicted first");
    assert!(bounded.has(&names[1], &images[1]).await, "the recently pulled image is kept");

    for number in 0..12 {
        let name = format!("more-{number}");
        let image = bounded.image(&name, 300 + number);
        bounded.pull(&name, &image).await;
    }
    assert!(bounded.has(&names[0], &images[0]).await, "the image in use is still kept");
    assert!(bounded.has(&names[1], &images[1]).await, "it is still the most recently pulled");
    // An evicted image can be pulled again.
    bounded.pull(&names[3], &images[3]).await;
    bounded.settled().await;
    // An eviction may be in progress; and two concurrent writes of one manifest are both counted.
    let agree = async {
        while !(bounded.stored().await..bounded.stored().await + 10_000).contains(&bounded.usage.bytes()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    crate::harness::within_reason(agree).await;
}

#[tokio::test]
async fn store_full_of_needed_images_serves_pulls_and_refuses_pushes() {
    let mut bounded = Bounded::start(2_500_000, true).await;
    let (one, other) = (bounded.image("one", 1), bounded.image("other", 2));
    for (name, image, retention) in
        [("one", &one, ImageRetention::in_use()), ("other", &other, ImageRetention::retained())]
    {
        // A cluster reports an image before it is pulled.
        bounded.report(name, retention).await;
        bounded.pull(name, image).await;
        bounded.cache.drain().await;
    }
    let third = bounded.image("third", 3);
    bounded.pull("third", &third).await;
    bounded.cache.drain().await;
    assert!(!bounded.has("third", &third).await, "it was streamed, not stored");
    assert!(bounded.has("one", &one).await && bounded.has("other", &other).await);

    let app = RepositoryName::local("app").unwrap();
    let id = bounded.store.start_upload(&app).await.unwrap();
    let mut upload = bounded.store.upload(&app, &id).await.unwrap();
    let refused = upload.append(&[vec![7; 1 << 20].into()]).await.unwrap_err();
    assert_eq!(refused.kind(), SourceErrorKind::Storage);
    assert!(refused.chain().contains("the limit is 2500000"), "{}", refused.chain());
    upload.append(&[vec![7; 1000].into()]).await.unwrap();
    upload.cancel().await.unwrap();
    assert!(bounded.stored().await <= bounded.limit);
}

#[tokio::test]
async fn upload_ended_by_another_process_takes_no_space() {
    let bounded = Bounded::start(2_500_000, true).await;
    let app = RepositoryName::local("app").unwrap();
    let ended = bounded.store.start_upload(&app).await.unwrap();
    let mut upload = bounded.store.upload(&app, &ended).await.unwrap();
    upload.append(&[vec![7; 2_000_000].into()]).await.unwrap();
    drop(upload);
    let uploads = bounded.data.path().join("docker/registry/v2/repositories/app/_uploads");
    std::fs::remove_dir_all(uploads.join(ended.as_str())).unwrap();
    let id = bounded.store.start_upload(&app).await.unwrap();
    let mut upload = bounded.store.upload(&app, &id).await.unwrap();
    upload.append(&[vec![7; 2_000_000].into()]).await.unwrap();
}

#[tokio::test]
async fn unmanaged_images_expire_and_managed_ones_do_not() {
    let expiry = UnmanagedExpiry::of_pulled_through(Duration::ZERO);
    let mut bounded = Bounded::with_expiry(u64::MAX, true, Some(expiry)).await;
    let images: Vec<_> =
        (0..3).map(|n| (format!("app-{n}"), bounded.image(&format!("app-{n}"), n))).collect();
    bounded.report("app-1", ImageRetention::unused(Some(1))).await;
    for (name, image) in &images {
        bounded.pull(name, image).await;
    }
    bounded.cache.drain().await;
    for (name, image) in &images {
        assert!(bounded.has(name, image).await, "{name}");
    }
    // Pulls are flushed to the store; their age is what is stored there.
    bounded.pulls.flush(&bounded.store).await.unwrap();
    let old = |name: &str, image: &SampleImage| {
        let repository = bounded.repository(name).encoded().unwrap();
        let blobs = bounded.data.path().join("docker/registry/v2/blobs");
        let digests = image.blobs().keys().chain(image.manifests().iter().map(Manifest::digest));
        for digest in digests.chain([image.index().digest()]) {
            let hex = digest.encoded();
            let path = blobs.join(format!("sha256/{}/{hex}/data", &hex[..2]));
            let before = SystemTime::now() - Duration::from_secs(3600);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
        }
        let pulls = bounded.data.path().join(".kuik/notes").join(repository).join("_notes/pulls");
        std::fs::write(pulls, "{}").unwrap();
    };
    for place in [0, 1] {
        old(&images[place].0, &images[place].1);
    }
    let gone = async {
        while bounded.has("app-0", &images[0].1).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    crate::harness::within_reason(gone).await;
    assert!(bounded.has("app-1", &images[1].1).await, "a cluster manages it");
    assert!(bounded.has("app-2", &images[2].1).await, "it was pulled a moment ago");
}
