//! Garbage is collected without a pause while images that share layers are pushed, pulled and deleted: no request
//! fails, no image is lost, and in the end all garbage is gone. Ten seconds of it, or as many as `KUIK_SOAK_SECONDS`
//! says (`make soak TIME=300`, and in a bucket `make soak TIME=300 STORAGE=s3`); the figures are printed.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Failed, Kuik, Remote, Storage, assert_contains_only};
use futures::TryStreamExt as _;
use kuik_testkit::SampleImage;
use tokio::task::JoinSet;

const SECONDS: &str = "KUIK_SOAK_SECONDS";
const PUSHERS: u64 = 3;
const PULLERS: u64 = 2;
const TAGS: u64 = 8;
/// Longer than any push or pull takes here; what takes longer may be done again.
const GRACE: Duration = Duration::from_secs(5);
const ARGUMENTS: [&str; 9] = [
    "--allow-anonymous-push",
    "--sparse",
    "nothing",
    "--gc-delete-untagged",
    "--gc-grace",
    "5s",
    "--gc-notice",
    "1s",
    "--gc-interval",
];

/// State that all clients share.
#[derive(Debug)]
struct Load {
    address: SocketAddr,
    end: Instant,
    next: AtomicU64,
    pushed: AtomicU64,
    pulled: AtomicU64,
    deleted: AtomicU64,
    slow: AtomicU64,
    requests: AtomicU64,
    /// Which image has which digest.
    images: Mutex<HashMap<String, u64>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_collected_under_load_without_client_errors() {
    soak(Storage::directory(), "10ms").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn garbage_is_collected_under_load_in_a_bucket_without_client_errors() {
    soak(Storage::bucket().await, "150ms").await;
}

/// Loads a registry that collects every `interval`.
async fn soak(storage: Storage, interval: &str) {
    let seconds = std::env::var(SECONDS).map_or(10, |text| text.parse().unwrap());
    let mut kuik = storage.registry(&[&ARGUMENTS[..], &[interval]].concat()).await;
    let load = Arc::new(Load {
        address: kuik.address(),
        end: Instant::now() + Duration::from_secs(seconds),
        next: AtomicU64::new(0),
        pushed: AtomicU64::default(),
        pulled: AtomicU64::default(),
        deleted: AtomicU64::default(),
        slow: AtomicU64::default(),
        requests: AtomicU64::default(),
        images: Mutex::default(),
    });
    let (mut pushers, mut pullers) = (JoinSet::new(), JoinSet::new());
    for number in 0..PUSHERS {
        pushers.spawn(push(load.clone(), number));
    }
    for number in 0..PULLERS {
        pullers.spawn(pull(load.clone(), number));
    }
    let mut peak = 0;
    while Instant::now() < load.end {
        peak = peak.max(Kuik::rss_anon(kuik.pid()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let kept: BTreeMap<String, BTreeMap<String, u64>> = pushers.join_all().await.into_iter().collect();
    pullers.join_all().await;

    let mut images: BTreeMap<String, Vec<SampleImage>> = BTreeMap::new();
    for (repository, tags) in &kept {
        // One without a tag may still have links to layers that another one needs.
        let here = images.entry(repository.clone()).or_default();
        let mut remote = Remote::new(kuik.address(), repository);
        assert_eq!(remote.tags().await.unwrap(), tags.keys().cloned().collect::<Vec<_>>(), "{repository}");
        for (tag, number) in tags {
            let image = image(*number);
            let found = remote.resolve(tag).await.unwrap();
            assert_eq!(found.as_deref(), Some(image.index().digest().as_str()), "{tag} of {repository}");
            remote.pull(&image).await.unwrap();
            here.push(image);
        }
    }
    let runs = kuik.metric("kube_image_keeper_registry_gc_runs_total").await;
    let failed = kuik.metric("kube_image_keeper_registry_gc_failed_runs_total").await;
    let reclaimed = kuik.metric("kube_image_keeper_registry_gc_reclaimed_bytes_total").await;
    assert_eq!(failed, 0, "{}", kuik.log());
    kuik.terminate();
    assert!(kuik.ended().await.success(), "{}", kuik.log());
    let before = stored(&storage).await;
    assert_contains_only(&storage, &images).await;

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "soak: {seconds} s, {} images pushed, {} pulled, {} tags deleted, {} requests, {} pushes and \
         pulls given up past the grace period; {runs} GC runs, {reclaimed} bytes reclaimed \
         under load and {} at the end; RssAnon at most {} KiB",
        count(&load.pushed),
        count(&load.pulled),
        count(&load.deleted),
        count(&load.requests),
        count(&load.slow),
        before - stored(&storage).await,
        peak >> 10,
    );
    assert!(runs > 0 && count(&load.pulled) > 0, "there was no load");
}

/// The bytes of all blobs and manifests.
async fn stored(storage: &Storage) -> u64 {
    storage
        .open()
        .blobs()
        .map_ok(|blob| blob.size)
        .try_fold(0, async |sum, size| Ok(sum + size))
        .await
        .unwrap()
}

/// Pushes new images, each to the next tag of its repository; sometimes deletes a tag. Returns what is there in the end.
async fn push(load: Arc<Load>, number: u64) -> (String, BTreeMap<String, u64>) {
    let repository = format!("team/app-{number}");
    let mut remote = Remote::new(load.address, &repository);
    let mut tags = BTreeMap::new();
    while Instant::now() < load.end {
        let number = load.next.fetch_add(1, Ordering::Relaxed);
        let (image, tag) = (image(number), format!("tag-{}", number % TAGS));
        load.images.lock().unwrap().insert(image.index().digest().to_string(), number);
        let began = Instant::now();
        match remote.push(&image, &tag).await {
            Ok(()) => {
                tags.insert(tag, number);
                load.pushed.fetch_add(1, Ordering::Relaxed);
            }
            Err(failed) => load.failed(began, &failed),
        }
        if number.is_multiple_of(5)
            && let Some((tag, _)) = tags.pop_first()
        {
            assert!(remote.delete(&tag).await.unwrap(), "{tag} of {repository} was pushed");
            load.deleted.fetch_add(1, Ordering::Relaxed);
        }
    }
    load.requests.fetch_add(remote.requests(), Ordering::Relaxed);
    (repository, tags)
}

/// Pulls tags of any repository. If a tag is moved or deleted meanwhile, the pull continues.
async fn pull(load: Arc<Load>, number: u64) {
    let mut remotes: Vec<Remote> =
        (0..PUSHERS).map(|number| Remote::new(load.address, &format!("team/app-{number}"))).collect();
    let mut turn = number;
    while Instant::now() < load.end {
        turn += 1;
        let remote = &mut remotes[usize::try_from(turn % PUSHERS).unwrap()];
        let began = Instant::now();
        // A missing tag is skipped.
        let Some(digest) = remote.resolve(&format!("tag-{}", turn / PUSHERS % TAGS)).await.unwrap() else {
            tokio::task::yield_now().await;
            continue;
        };
        let number = load.images.lock().unwrap()[&digest];
        match remote.pull(&image(number)).await {
            Ok(()) => drop(load.pulled.fetch_add(1, Ordering::Relaxed)),
            Err(failed) => load.failed(began, &failed),
        }
    }
    load.requests.fetch_add(remotes.iter().map(Remote::requests).sum(), Ordering::Relaxed);
}

impl Load {
    /// Nothing may fail that was done within the grace period.
    fn failed(&self, began: Instant, failed: &Failed) {
        assert!(began.elapsed() >= GRACE, "{failed:?} after {:?}", began.elapsed());
        self.slow.fetch_add(1, Ordering::Relaxed);
    }
}

/// An image that shares half of its layers with the one before it, and half with the one after it.
fn image(number: u64) -> SampleImage {
    let builder =
        SampleImage::builder().seed(number * 2).platform("linux", "amd64").platform("linux", "arm64");
    let builder = builder.layer(20_000).layer(20_000);
    if number.is_multiple_of(3) { builder.as_buildx().build() } else { builder.build() }
}
