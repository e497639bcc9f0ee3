//! Crash test: `kill -9` at random times of a `kuik-registry` under concurrent pushes, pulls, deletes and garbage
//! collection. All acknowledged content is present, byte for byte, nothing else is visible, and the space of the rest is
//! reclaimed.
//!
//! Workers (`worker`) record the responses, and so what the registry may and must contain (`model`). Every second process
//! collects without a grace period: a push may then be rejected because its blobs were collected, and is retried;
//! acknowledged content is still protected, by leases.

mod model;
mod worker;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::support::{PATIENCE, Storage, assert_contains_only};
use kuik_testkit::SampleImage;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use worker::{Random, Worker};

/// How often it is killed, unless this says another number.
const ROUNDS: &str = "KUIK_CRASH_ROUNDS";
const WORKERS: u64 = 4;
/// How many images there are. Few, so that they come and go and come again.
const IMAGES: u64 = 12;
/// Repeats a run, as far as chance is concerned.
const SEED: &str = "KUIK_CRASH_SEED";

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kills_and_the_rest_is_collected() {
    crash(Storage::directory(), Duration::from_millis(500), "30ms").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn acknowledged_writes_survive_kills_in_a_bucket() {
    // A run gives a notice of three seconds: some are cut off before it has passed, some after.
    crash(Storage::bucket().await, Duration::from_secs(5), "150ms").await;
}

/// Kills the registry again and again, each time within `window` of the first pushes that it took. It collects every
/// `interval`.
async fn crash(storage: Storage, window: Duration, interval: &str) {
    let seed = std::env::var(SEED)
        .map_or_else(|_| RandomState::new().build_hasher().finish(), |text| text.parse().unwrap());
    println!("{SEED}={seed}");
    let mut random = Random::new(seed);
    let images: Arc<Vec<SampleImage>> = Arc::new((0..IMAGES).map(image).collect());
    let mut workers: Vec<Worker> =
        (0..WORKERS).map(|number| Worker::new(number, images.clone(), random.fork())).collect();

    let rounds = std::env::var(ROUNDS).map_or(5, |text| text.parse().unwrap());
    for round in 0..rounds {
        let kuik = registry(&storage, round, interval).await;
        check(&mut workers, kuik.address()).await;
        let mut load = JoinSet::new();
        let (progress, begun) = watch::channel(0);
        for mut worker in workers {
            let (address, progress) = (kuik.address(), progress.clone());
            load.spawn(async move {
                worker.work(address, &progress).await;
                worker
            });
        }
        drop(progress);
        let mut pushed = begun.clone();
        let started =
            timeout(PATIENCE, pushed.wait_for(|pushed| *pushed >= 2)).await.map(|seen| seen.is_ok());
        if !matches!(started, Ok(true)) {
            let ended = load.try_join_next().map(|ended| ended.map(|worker| worker.told()));
            panic!("no load: {ended:?}\n{}", kuik.log());
        }
        let instant = window.mul_f64(random.below(1000) as f64 / 1000.0);
        sleep(instant).await;
        kuik.kill().await;
        workers = load.join_all().await;
        println!("round {round}: {} pushes acknowledged, killed after {instant:?}", *begun.borrow());
    }

    let kuik = registry(&storage, 1, interval).await;
    check(&mut workers, kuik.address()).await;
    let runs = kuik.metric("kube_image_keeper_registry_gc_failed_runs_total").await;
    assert_eq!(runs, 0, "{}", kuik.log());
    kuik.kill().await;
    let kept: BTreeMap<String, Vec<SampleImage>> =
        workers.iter().map(|worker| (worker.repository(), worker.kept())).collect();
    assert_contains_only(&storage, &kept).await;

    let told: Vec<_> = workers.iter().map(Worker::told).collect();
    println!("responses to the workers: {told:?}");
}

/// Collects all the time; every other one has no grace.
async fn registry(storage: &Storage, round: u64, interval: &str) -> crate::support::Kuik {
    let grace = if round.is_multiple_of(2) { "0s" } else { "300ms" };
    let arguments = [
        "--allow-anonymous-push",
        "--sparse",
        "nothing",
        "--gc-delete-untagged",
        "--gc-interval",
        interval,
        "--gc-notice",
        "3s",
        "--gc-grace",
        grace,
    ];
    storage.registry(&arguments).await
}

async fn check(workers: &mut [Worker], address: SocketAddr) {
    for worker in workers {
        worker.check(address).await;
    }
}

/// An image that shares layers with the one before it and the one after it; some have attestations, which are
/// referrers.
fn image(number: u64) -> SampleImage {
    let builder =
        SampleImage::builder().seed(number * 2).platform("linux", "amd64").platform("linux", "arm64");
    let builder = builder.layer(20_000).layer(20_000);
    if number.is_multiple_of(3) { builder.as_buildx().build() } else { builder.build() }
}
