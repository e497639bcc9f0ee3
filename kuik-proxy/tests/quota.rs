//! A store that is bounded: what is needed least goes, pulls go on whatever happens, and the bound holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail")]

mod rig;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::TryStreamExt as _;
use http::{Method, StatusCode};
use kuik_core::{
    content::{ContentSource as _, ContentStore as _, ManagedStore, Manifest, SourceErrorKind, TagOrDigest},
    reference::RepositoryName,
    registry::Timeouts,
    testkit::{SampleImage, ScriptedRegistry},
};
use kuik_proxy::{
    gc::{Collector, GcOptions, Leased, Leases},
    pull_through::{PullThrough, Revalidate},
    quota::{Limited, Mark, Marks, Pulls, Quota, QuotaMetrics, Recorded, Usage},
    service::ProxyService,
    store::FilesystemStore,
};
use rig::{Reply, ask, client_of, open, options, service};
use tempfile::TempDir;
use tokio::task::JoinHandle;

type Store = Leased<Limited<FilesystemStore>>;

/// A cache that may keep so much, with everything that a registry has around it.
struct Bounded {
    upstream: ScriptedRegistry,
    store: Store,
    cache: PullThrough,
    proxy: ProxyService,
    usage: Usage,
    pulls: Arc<Pulls>,
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
        let upstream = ScriptedRegistry::start().await.unwrap();
        let data = tempfile::tempdir().unwrap();
        let metrics = QuotaMetrics::default();
        let (usage, leases, pulls) =
            (Usage::new(Some(limit), metrics.clone()), Leases::default(), Arc::new(Pulls::default()));
        let limited = Limited::new(FilesystemStore::clone(&open(data.path())), usage.clone());
        let store = Leased::new(limited.clone(), leases.clone());
        let client = client_of(&upstream, Timeouts::default());
        let cache = PullThrough::new(Arc::new(store.clone()), Arc::new(client), options(Revalidate::Never));
        let (proxy, _) = service(Recorded::new(cache.clone(), pulls.clone()));
        let limited: Arc<dyn ManagedStore> = Arc::new(limited);
        let quota = Quota {
            store: limited.clone(),
            usage: usage.clone(),
            pulls: pulls.clone(),
            metrics,
            collector: Collector::new(limited, leases.clone()),
            leases,
            garbage: GcOptions::default(),
            settle: Duration::ZERO,
            cache: Some(cache.clone()),
        };
        let keeper = evicts.then(|| tokio::spawn(async { quota.run().await }));
        Self { upstream, store, cache, proxy, usage, pulls, keeper, limit, data }
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

    /// Pulls an image as a client does, and sees to it that every byte is right.
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

    /// Waits until everything that was pulled is kept, or not, and room was made.
    async fn settled(&self) {
        self.cache.drain().await;
        let settled = async {
            while self.usage.bytes() > self.limit - self.limit / 20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        rig::within_reason(settled).await;
    }

    /// How many bytes of content there are, counted.
    async fn stored(&self) -> u64 {
        let blobs: Vec<_> = self.store.blobs().try_collect().await.unwrap();
        blobs.iter().map(|blob| blob.size).sum()
    }

    /// Whether the store has an image whole.
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

    async fn mark(&self, name: &str, mark: Mark) {
        let at = TagOrDigest::Tag("v1".parse().unwrap());
        Marks(&self.store).set(&self.repository(name), &at, Some(mark)).await.unwrap();
    }
}

fn pinned() -> Mark {
    let mut mark = Mark::default();
    mark.pinned = true;
    mark
}

fn expired() -> Mark {
    let mut mark = Mark::default();
    mark.expires_at = Some(SystemTime::UNIX_EPOCH);
    mark
}

#[tokio::test]
async fn more_is_pulled_than_fits_and_what_is_needed_stays() {
    // Room for about six images of a mebibyte.
    let bounded = Bounded::start(6_500_000, true).await;
    let names: Vec<String> = (0..6).map(|number| format!("app-{number}")).collect();
    let images: Vec<SampleImage> = (0..6).map(|n| bounded.image(&names[n as usize], 100 + n)).collect();
    for place in 0..5 {
        bounded.pull(&names[place], &images[place]).await;
        bounded.settled().await;
    }
    // The first is pinned, the last but one has expired, and the second was pulled last of all.
    bounded.mark(&names[0], pinned()).await;
    bounded.mark(&names[3], expired()).await;
    let later = SystemTime::now() + Duration::from_secs(600);
    bounded.pulls.record(&bounded.repository(&names[1]), images[1].index().digest(), later);

    bounded.pull(&names[5], &images[5]).await;
    bounded.settled().await;
    let extra = bounded.image("extra", 200);
    bounded.pull("extra", &extra).await;
    bounded.settled().await;
    assert!(bounded.has(&names[0], &images[0]).await, "what is pinned stays");
    assert!(!bounded.has(&names[3], &images[3]).await, "what has expired goes first");
    assert!(bounded.has(&names[1], &images[1]).await, "what was pulled lately stays");

    for number in 0..12 {
        let name = format!("more-{number}");
        let image = bounded.image(&name, 300 + number);
        bounded.pull(&name, &image).await;
    }
    assert!(bounded.has(&names[0], &images[0]).await, "what is pinned stays, whatever comes");
    assert!(bounded.has(&names[1], &images[1]).await, "it still was pulled later than all others");
    // What went comes again.
    bounded.pull(&names[3], &images[3]).await;
    bounded.settled().await;
    // Something may be going at this moment; and of two that keep one manifest at once both are counted.
    let agree = async {
        while !(bounded.stored().await..bounded.stored().await + 10_000).contains(&bounded.usage.bytes()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    rig::within_reason(agree).await;
}

#[tokio::test]
async fn pulls_go_on_where_nothing_may_go_and_pushes_are_refused() {
    let bounded = Bounded::start(2_500_000, true).await;
    let (one, other) = (bounded.image("one", 1), bounded.image("other", 2));
    for (name, image) in [("one", &one), ("other", &other)] {
        bounded.pull(name, image).await;
        bounded.cache.drain().await;
        bounded.mark(name, pinned()).await;
    }
    let third = bounded.image("third", 3);
    bounded.pull("third", &third).await;
    bounded.cache.drain().await;
    assert!(!bounded.has("third", &third).await, "it went through");
    assert!(bounded.has("one", &one).await && bounded.has("other", &other).await);

    let app = RepositoryName::local("app").unwrap();
    let id = bounded.store.start_upload(&app).await.unwrap();
    let mut upload = bounded.store.upload(&app, &id).await.unwrap();
    let refused = upload.append(&[vec![7; 1 << 20].into()]).await.unwrap_err();
    assert_eq!(refused.kind(), SourceErrorKind::Storage);
    assert!(refused.chain().contains("the store may have 2500000"), "{}", refused.chain());
    upload.append(&[vec![7; 1000].into()]).await.unwrap();
    upload.cancel().await.unwrap();
    assert!(bounded.stored().await <= bounded.limit);
}

#[tokio::test]
async fn an_upload_that_another_process_has_ended_takes_no_room() {
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
