//! Three replicas of the cache, four nodes' proxies, 64 clients: upstream sends every byte once, and a replica that is
//! killed stops nobody. With a bucket that they share, what one of them has fetched the others serve.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kuik_core::{
    content::{Freshness, TagOrDigest},
    testkit::{Behaviour, Gate, Logged, Rule, SampleImage, ScriptedRegistry, Target},
};
use kuik_proxy::chain::rank;
use support::{Kuik, Storage, Transfer, eventually, proxied};

const CLIENTS: usize = 64;
const PROXIES: usize = 4;
const LAYERS: usize = 10;
const LAYER: usize = 256 << 10;
/// Where upstream stops in the middle of a layer.
const HALF: u64 = 100_000;

const TOO_BUSY: &str = "ten times, this machine was too busy for a replica to answer a ping within a second";
const REPLICAS: usize = 3;

/// The replica that cleans up for all who share a bucket, as eagerly as it can.
const CLEANS_UP: &[&str] = &["--gc-interval", "100ms", "--gc-grace", "0s"];
/// The others.
const SERVES: &[&str] = &["--gc-interval", "never", "--scrub-interval", "never"];

/// A cluster: a registry outside, replicas of the cache, and proxies on nodes.
struct Cluster {
    upstream: ScriptedRegistry,
    replicas: Vec<Kuik>,
    proxies: Vec<Kuik>,
    storages: Vec<Storage>,
}

impl Cluster {
    /// Each replica has a storage of its own, or all share one.
    async fn start(storages: Vec<Storage>) -> Self {
        let upstream = ScriptedRegistry::start().await.unwrap();
        let insecure = ["--insecure-registries", &upstream.host()];
        let through = [&["--pull-through"], insecure.as_slice()].concat();
        let mut replicas = Vec::new();
        for n in 0..REPLICAS {
            let keeping: &[&str] = match (storages.len(), n) {
                (REPLICAS, _) => &[],
                (_, 0) => CLEANS_UP,
                (_, _) => SERVES,
            };
            let storage = &storages[n % storages.len()];
            replicas.push(storage.registry(&[through.as_slice(), keeping].concat()).await);
        }
        let names: Vec<_> = replicas.iter().map(Kuik::host).collect();
        let mut proxies = Vec::new();
        for n in 0..PROXIES {
            // In which order a proxy learns of the replicas makes no difference.
            let mut names = names.clone();
            names.rotate_left(n % REPLICAS);
            proxies.push(Kuik::proxy(&names, &insecure).await);
        }
        Self { upstream, replicas, proxies, storages }
    }

    /// Every client pulls the tag, and then all blobs at once. How often one had to begin a request again.
    async fn pull(&self, tag: &str, image: &Arc<SampleImage>, patient: bool) -> usize {
        let again = Arc::new(AtomicUsize::new(0));
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            let (image, again) = (image.clone(), again.clone());
            let (address, name) =
                (self.proxies[n % PROXIES].address(), proxied(&self.upstream.host(), "app"));
            let path = format!("/v2/{name}/manifests/{tag}");
            clients.push(tokio::spawn(async move {
                fetch(address, &path, image.index().bytes(), patient, &again).await;
                let blobs = image.blobs().iter().map(async |(digest, bytes)| {
                    fetch(address, &format!("/v2/{name}/blobs/{digest}"), bytes, patient, &again).await;
                });
                futures::future::join_all(blobs).await;
            }));
        }
        for client in clients {
            client.await.unwrap();
        }
        again.load(Ordering::SeqCst)
    }

    /// A client asks for the manifests of all platforms, as clients do before they ask for blobs: waits until they are kept.
    /// What no manifest names is garbage, and here it has no time of grace.
    async fn pull_manifests(&self, image: &SampleImage) {
        let name = proxied(&self.upstream.host(), "app");
        let (app, store) = (self.upstream.repository("app").unwrap(), self.storages[0].open());
        for manifest in image.manifests() {
            let path = format!("/v2/{name}/manifests/{}", manifest.digest());
            fetch(self.proxies[0].address(), &path, manifest.bytes(), true, &AtomicUsize::new(0)).await;
            let at = TagOrDigest::Digest(manifest.digest().clone());
            eventually("a manifest is kept", async || {
                store.manifest(&app, &at, Freshness::Cached).await.is_ok()
            })
            .await;
        }
    }

    /// Whether a proxy has left alone a replica that is there. One that a busy machine keeps from answering a ping for a
    /// second is away, as a proxy sees it: its part is fetched by another, and the figures show nothing.
    fn disturbed(&self) -> bool {
        let logs: String = self.proxies.iter().map(Kuik::log).collect();
        let alone = |replica: &Kuik| logs.contains(&format!("is left alone replica=\"{}\"", replica.host()));
        self.replicas.iter().any(alone)
    }

    fn sent(&self, digests: &SampleImage) -> u64 {
        let of_image =
            |entry: &&Logged| digests.blobs().keys().any(|digest| entry.path.ends_with(digest.as_str()));
        let log = self.upstream.log();
        log.iter()
            .filter(|entry| entry.target == Target::Blob)
            .filter(of_image)
            .map(|entry| entry.bytes_sent)
            .sum()
    }
}

/// Gets `path`; a client that is patient begins again where it broke off, as engines do.
async fn fetch(address: SocketAddr, path: &str, expected: &[u8], patient: bool, again: &AtomicUsize) {
    for _ in 0..20 {
        match Transfer::begin(address, "GET", path, "").await.is(expected).await {
            Ok(()) => return,
            Err(problem) => assert!(patient, "{path}: {problem}"),
        }
        again.fetch_add(1, Ordering::SeqCst);
    }
    panic!("{path} could not be had");
}

fn image(seed: u64) -> Arc<SampleImage> {
    let builder = SampleImage::builder().seed(seed).platform("linux", "amd64");
    Arc::new((0..LAYERS).fold(builder, |builder, _| builder.layer(LAYER)).build())
}

fn size(image: &SampleImage) -> u64 {
    image.blobs().values().map(|bytes| bytes.len() as u64).sum()
}

/// A cluster that has pulled a cold image, and was not disturbed.
async fn undisturbed(cold: &Arc<SampleImage>, storages: impl AsyncFn() -> Vec<Storage>) -> Cluster {
    for _ in 0..10 {
        let cluster = Cluster::start(storages().await).await;
        cluster.upstream.add_image("app", "v1", cold);
        if cluster.storages.len() == 1 {
            cluster.pull_manifests(cold).await;
        }
        assert_eq!(cluster.pull("v1", cold, false).await, 0);
        if !cluster.disturbed() {
            return cluster;
        }
    }
    panic!("{TOO_BUSY}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_sends_every_byte_once_and_a_killed_replica_stops_nobody() {
    let cold = image(71);
    let storages = async || (0..REPLICAS).map(|_| Storage::directory()).collect();
    for _ in 0..10 {
        let mut cluster = undisturbed(&cold, storages).await;
        let (sent, whole) = (cluster.sent(&cold), size(&cold));
        let manifests = cluster.upstream.count(Target::Manifest);
        println!(
            "{CLIENTS} clients, {PROXIES} proxies, 3 replicas: {sent} bytes of {whole}, {manifests} manifest requests"
        );
        assert_eq!(sent, whole, "every byte once");
        assert_eq!(manifests, 1, "one replica is asked where the tag points, and asks once");
        let requests = cluster.upstream.count(Target::Blob);
        assert_eq!(requests, cold.blobs().len(), "a request for each blob");

        let broken = image(72);
        let again = one_is_killed(&mut cluster, &cold, &broken).await;
        if cluster.disturbed() {
            continue;
        }
        let (sent, whole) = (cluster.sent(&broken), size(&broken));
        println!(
            "one of 3 replicas killed in the middle: all pulls succeeded, {again} requests were begun again; upstream \
             sent {sent} bytes of {whole} (ratio {:.2})",
            sent as f64 / whole as f64
        );
        let most = 2 * whole;
        assert!(
            sent <= most,
            "what the killed replica owned is fetched once more, and no more: {sent} of {whole}"
        );
        return;
    }
    panic!("{TOO_BUSY}");
}

/// Another image stops in the middle of every blob, until the owner of one is killed. How many requests had to be begun
/// again until every client had it.
async fn one_is_killed(cluster: &mut Cluster, cold: &SampleImage, broken: &Arc<SampleImage>) -> usize {
    cluster.upstream.add_image("app", "broken", broken);
    let gate = Gate::new();
    cluster
        .upstream
        .script(Rule::on(Target::Blob).does(Behaviour::Stall { after: HALF, until: gate.clone() }));
    let names: Vec<_> = cluster.replicas.iter().map(Kuik::host).collect();
    let large = |image: &SampleImage| {
        let blobs = image.blobs().iter().filter(|(_, bytes)| bytes.len() as u64 > HALF);
        blobs.map(|(digest, _)| digest.clone()).collect::<Vec<_>>()
    };
    let owner = rank(large(broken)[0].as_str(), &names).next().unwrap();
    let killed = cluster.replicas.remove(owner);
    let stalling = large(cold).len() + LAYERS;
    let killing = async {
        let stalled = |log: &[Logged]| {
            let half = |entry: &&Logged| entry.target == Target::Blob && entry.bytes_sent >= HALF;
            log.iter().filter(half).count() >= stalling
        };
        cluster.upstream.wait_for(stalled).await;
        killed.kill().await;
        gate.open();
    };
    let (again, ()) = tokio::join!(cluster.pull("broken", broken, true), killing);
    again
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn replicas_that_share_a_bucket_fetch_once_and_serve_for_one_another() {
    let image = image(73);
    let mut cluster = undisturbed(&image, async || vec![Storage::bucket().await]).await;
    assert_eq!(cluster.sent(&image), size(&image), "every byte once");
    let asked = cluster.upstream.count(Target::Blob);
    assert_eq!(asked, image.blobs().len());

    // Who is asked while a blob is still on its way into the bucket would fetch it as well.
    let (app, store) = (cluster.upstream.repository("app").unwrap(), cluster.storages[0].open());
    for digest in image.blobs().keys() {
        // With its link, which comes last: the blob alone may be another repository's.
        eventually("a blob is in the bucket", async || store.blob_size(&app, digest).await.is_ok()).await;
    }
    let mut again = 0;
    while cluster.replicas.len() > 1 {
        cluster.replicas.pop().unwrap().kill().await;
        again += cluster.pull("v1", &image, true).await;
        assert_eq!(cluster.upstream.count(Target::Blob), asked, "what another one has fetched is served");
    }
    // Garbage was being collected all the time, and had to wait for a moment in which all replicas knew of it.
    let runs = async || cluster.replicas[0].metric("kube_image_keeper_registry_gc_runs_total").await;
    eventually("a run has ended", async || runs().await > 0).await;
    println!(
        "2 of 3 replicas on one bucket killed, {} GC runs by then: {again} requests were begun again",
        runs().await
    );
    cluster.pull("v1", &image, true).await;
    assert_eq!(cluster.upstream.count(Target::Blob), asked, "and nothing of it was garbage");
}
