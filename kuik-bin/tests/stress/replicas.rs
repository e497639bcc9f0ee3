//! Three replicas of the cache, four node proxies, 64 clients: upstream sends every byte once, and a killed replica fails no
//! pull. With a shared bucket, the content that one replica has fetched is served by the others.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{Kuik, Storage, Transfer, eventually, proxied};
use kuik_core::content::{Freshness, TagOrDigest};
use kuik_proxy::chain::rank;
use kuik_testkit::{Behavior, Gate, Logged, Rule, SampleImage, ScriptedRegistry, Target};

const CLIENTS: usize = 64;
const PROXIES: usize = 4;
const LAYERS: usize = 10;
const LAYER: usize = 256 << 10;
/// Offset at which upstream pauses in the middle of a layer.
const HALF: u64 = 100_000;

/// Attempts to measure on a machine that is too busy.
const ATTEMPTS: usize = 10;
const TOO_BUSY: &str = "a replica that was alive was given up in every attempt";
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
        // One check of the tag is enough for all clients.
        let through = [&["--pull-through", "--revalidate-after=1h"], insecure.as_slice()].concat();
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

    /// Returns whether a proxy has marked a live replica as down. A replica that does not respond to a ping for a second,
    /// on a busy machine, counts as down: another one fetches its part, and the figures mean nothing.
    fn disturbed(&self) -> bool {
        let logs: String = self.proxies.iter().map(Kuik::log).collect();
        let alone =
            |replica: &Kuik| logs.contains(&format!("pausing requests replica=\"{}\"", replica.host()));
        let disturbed = self.replicas.iter().any(alone);
        assert!(!disturbed || busy(), "a proxy gave up a live replica, and the machine is not busy:\n{logs}");
        disturbed
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

/// Returns whether more programs want to run than there are processors, on average over the last minute.
fn busy() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    load > std::thread::available_parallelism().unwrap().get() as f64
}

/// Gets `path`; a patient client resumes a broken response, as container engines do.
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
    for _ in 0..ATTEMPTS {
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
async fn upstream_sends_every_byte_once_and_a_killed_replica_fails_no_pull() {
    let cold = image(71);
    let storages = async || (0..REPLICAS).map(|_| Storage::directory()).collect();
    for _ in 0..ATTEMPTS {
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
            "one of 3 replicas killed in the middle: all pulls succeeded, {again} requests were retried; upstream \
             sent {sent} bytes of {whole} (ratio {:.2})",
            sent as f64 / whole as f64
        );
        let most = 2 * whole;
        assert!(
            sent <= most,
            "the content of the killed replica is fetched exactly once more: {sent} of {whole}"
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
        .script(Rule::on(Target::Blob).does(Behavior::Stall { after: HALF, until: gate.clone() }));
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

    // A replica that gets a request while a blob is still being uploaded to the bucket would fetch it as well.
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
        "2 of 3 replicas on one bucket killed, {} GC runs until then: {again} requests were retried",
        runs().await
    );
    cluster.pull("v1", &image, true).await;
    assert_eq!(cluster.upstream.count(Target::Blob), asked, "and nothing of it was garbage");
}
