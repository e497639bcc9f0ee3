//! Cold-pull stampede: all nodes of a cluster pull one cold image at the same moment. Upstream gets each request
//! once, and no client waits much longer than one client alone. The figures are printed (`make stampede`).

use std::time::{Duration, Instant};

use crate::harness::{Harness, OverTcp};
use bytes::Bytes;
use futures::future::join_all;
use http::Method;
use kuik_testkit::{SampleImage, Target};

const NODES: usize = 200;
const LAYERS: usize = 10;
const LAYER: usize = 128 << 10;

/// An image of ten layers, at an upstream without any requests yet.
async fn cold() -> (Harness, OverTcp, SampleImage) {
    let harness = Harness::start().await;
    let mut builder = SampleImage::builder().seed(3).platform("linux", "amd64");
    for _ in 0..LAYERS {
        builder = builder.layer(LAYER);
    }
    let image = builder.build();
    harness.upstream.add_image("app", "index", &image);
    harness.upstream.add_manifest("app", Some("latest"), &image.manifests()[0]);
    let front = OverTcp::start(harness.proxy.clone()).await;
    (harness, front, image)
}

/// Pulls like a container engine: the tag, its manifest, the configuration, the layers three at a time. Returns the
/// duration.
async fn pull(harness: &Harness, front: &OverTcp, image: &SampleImage) -> Duration {
    let began = Instant::now();
    let get = async |rest: String, expected: Bytes| {
        let seen = front.ask(Method::GET, &harness.path("app", &rest)).await;
        assert!(seen.status.is_success() && seen.complete, "{rest}: {}", seen.status);
        assert!(seen.body == expected, "{rest}: other bytes");
    };
    let manifest = &image.manifests()[0];
    get("manifests/latest".to_owned(), manifest.bytes().clone()).await;
    get(format!("manifests/{}", manifest.digest()), manifest.bytes().clone()).await;
    let blobs: Vec<_> = image.blobs().iter().collect();
    for some in blobs.chunks(3) {
        join_all(some.iter().map(|(digest, bytes)| get(format!("blobs/{digest}"), (*bytes).clone()))).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_nodes_pull_one_cold_image() {
    let (harness, front, image) = cold().await;
    let alone = pull(&harness, &front, &image).await;

    let (harness, front, image) = cold().await;
    let mut times = join_all((0..NODES).map(|_| pull(&harness, &front, &image))).await;
    times.sort();
    let log = harness.upstream.log();
    let asked = |target, method: Method| {
        log.iter().filter(|entry| entry.target == target && entry.method == method).count()
    };
    let blobs = (asked(Target::Blob, Method::GET), asked(Target::Blob, Method::HEAD));
    let manifests = (asked(Target::Manifest, Method::GET), asked(Target::Manifest, Method::HEAD));
    let (median, p99) = (times[NODES / 2], times[NODES * 99 / 100]);
    println!("{NODES} clients, {LAYERS} layers of {LAYER} bytes, on one machine:");
    println!(
        "  upstream: {} GET and {} HEAD of blobs, {LAYERS} layers and a configuration",
        blobs.0, blobs.1
    );
    println!("  upstream: {} GET and {} HEAD of manifests", manifests.0, manifests.1);
    println!("  one client alone {alone:?}; of {NODES}: median {median:?}, p99 {p99:?}");
    let each = p99.as_secs_f64() / alone.as_secs_f64() / NODES as f64;
    println!("  all {NODES} are done in {each:.2} times what {NODES} pulls by one alone would take");
    let asked_for: Vec<_> = log.iter().filter(|entry| entry.target == Target::Blob).collect();
    assert_eq!(blobs, (LAYERS + 1, 0), "{asked_for:#?}");
    assert!(manifests.0 == 1 && manifests.1 <= 1, "{manifests:?}");
    let sent: u64 =
        log.iter().filter(|entry| entry.target == Target::Blob).map(|entry| entry.bytes_sent).sum();
    assert_eq!(sent, image.blobs().values().map(|bytes| bytes.len() as u64).sum::<u64>());
}
