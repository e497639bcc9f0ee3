//! Two clusters on one bucket, each with controllers and a cache of its own: the expiry of an image in one of them leaves
//! what the other holds, and eviction of either cache respects both.
//!
//! The caches have clocks that are ahead by less than a bucket tolerates. So content appears to be older than the ten
//! minutes in which none is evicted from a bucket that other processes write to.

use std::time::Duration;

use kuik_core::retention::RETENTION_PATH;
use kuik_testkit::{
    SampleImage, ScriptedRegistry,
    real::{ApiServer, Bucket, S3Server},
};
use tokio::time::Instant;

use crate::support::{
    Clock, Kuik, Remote, api_server, eventually, get, is_cached, name_of_app, object, pod, proxied,
};

/// Room for four images of a mebibyte.
const LIMIT: &str = "4900Ki";

/// How many other images each cache is filled with.
const FILLERS: usize = 6;

/// How long an eviction takes that is to come, with the notice to the other cache. An image that is pulled meanwhile is not
/// evicted.
const EVICTION: Duration = Duration::from_secs(10);

/// A cluster with its cache.
struct Cluster {
    server: ApiServer,
    cache: Kuik,
    _controllers: Kuik,
}

fn image(seed: u64) -> SampleImage {
    SampleImage::builder().seed(800 + seed).platform("linux", "amd64").layer(1 << 20).build()
}

impl Cluster {
    async fn start(bucket: &Bucket, clock: &Clock, upstream: &str) -> Self {
        let storage = format!("s3://{}/{}", bucket.name(), bucket.prefix());
        let flags = [
            "--storage-endpoint",
            bucket.endpoint(),
            "--storage-allow-http",
            "--pull-through",
            "--insecure-registries",
            upstream,
            "--allow-anonymous-push",
            "--gc-notice=1s",
            "--max-size",
            LIMIT,
        ];
        let clock = clock.environment();
        let keys =
            [("AWS_ACCESS_KEY_ID", bucket.access_key()), ("AWS_SECRET_ACCESS_KEY", bucket.secret_key())];
        let environment: Vec<_> =
            clock.iter().map(|(name, value)| (*name, value.as_str())).chain(keys).collect();
        let (server, cache) = (api_server().await, Kuik::registry_in(&storage, &flags, &environment).await);
        let user = server.user("controllers", None).unwrap();
        let flags = ["--registry-token-secret=", "--verify-interval=1s"];
        let controllers = Kuik::controllers(&user, &cache.host(), &flags).await;
        Self { server, cache, _controllers: controllers }
    }

    /// Starts a pod that uses a tag of the upstream; waits until the image is cached.
    async fn start_pod(&self, upstream: &str, tag: &str) {
        let image = format!("{upstream}/team/app:{tag}");
        self.server.admin().apply(&pod(tag, &image).to_string()).await.unwrap();
        let name = name_of_app(upstream, tag);
        eventually("the image is cached", async || is_cached(self.server.admin(), &name).await).await;
    }

    /// Deletes the pod, and has the image expire.
    async fn release(&self, upstream: &str, tag: &str) {
        let (admin, name) = (self.server.admin(), name_of_app(upstream, tag));
        let pod = ["delete", "pod", tag, "--namespace=shop", "--grace-period=0", "--force"];
        admin.kubectl(pod).await.unwrap();
        eventually("it is unused", async || {
            object(admin, &["cachedimages", &name]).await.unwrap()["spec"]["expiresAt"].is_string()
        })
        .await;
        let past = r#"{"spec": {"expiresAt": "2020-01-01T00:00:00Z"}}"#;
        admin.kubectl(["patch", "cachedimage", &name, "--type=merge", "--patch", past]).await.unwrap();
        eventually("it has expired", async || object(admin, &["cachedimages", &name]).await.is_none()).await;
    }

    /// Pulls one image after the other, until something is evicted; returns whether it was.
    async fn evicts(&self, upstream: &str, images: &[SampleImage]) -> bool {
        for image in images {
            self.pull(upstream, image).await;
            let deadline = Instant::now() + EVICTION;
            while Instant::now() < deadline {
                if self.metric("kube_image_keeper_registry_quota_evicted_images_total").await > 0 {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        false
    }

    /// Returns the document of this cluster as the cache of `other` has it.
    async fn document(&self, other: &Self) -> String {
        let namespace = object(self.server.admin(), &["namespace", "kube-system"]).await.unwrap();
        let target = format!("{RETENTION_PATH}{}", namespace["metadata"]["uid"].as_str().unwrap());
        String::from_utf8(get(other.cache.address(), &target).await.body).unwrap()
    }

    async fn metric(&self, name: &str) -> u64 {
        let metrics = String::from_utf8(get(self.cache.address(), "/metrics").await.body).unwrap();
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    /// Pulls all of an image from this cluster's cache.
    async fn pull(&self, upstream: &str, image: &SampleImage) {
        Remote::new(self.cache.address(), &proxied(upstream, "team/app")).pull(image).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn expiry_and_eviction_of_one_cluster_respect_the_other_one_on_the_same_bucket() {
    let (upstream, minio) = (ScriptedRegistry::start().await.unwrap(), S3Server::start().await.unwrap());
    let host = upstream.host();
    let images = [("both", image(0)), ("one", image(1)), ("other", image(2))];
    for (tag, image) in &images {
        upstream.add_image("team/app", tag, image);
    }
    let fillers: Vec<_> = (10..).take(2 * FILLERS).map(image).collect();
    for (number, image) in fillers.iter().enumerate() {
        upstream.add_image("team/app", &format!("filler-{number}"), image);
    }
    let (bucket, clock) = (minio.bucket("shared"), Clock::at("+13m"));
    let (one, other) =
        tokio::join!(Cluster::start(&bucket, &clock, &host), Cluster::start(&bucket, &clock, &host));
    one.start_pod(&host, "both").await;
    other.start_pod(&host, "both").await;
    one.start_pod(&host, "one").await;
    other.start_pod(&host, "other").await;

    // Each cache is filled with more than fits. It knows from the bucket what the other cluster uses.
    for (cluster, fillers) in [(&one, &fillers[..FILLERS]), (&other, &fillers[FILLERS..])] {
        assert!(cluster.evicts(&host, fillers).await, "{}", cluster.cache.log());
    }
    // The images in use come from the bucket: the registry is down.
    upstream.stop().await;
    for cluster in [&one, &other] {
        for (_, image) in &images {
            cluster.pull(&host, image).await;
        }
    }

    // The image expires in one cluster, and the other one still has its tag and its content.
    one.release(&host, "both").await;
    let tag = format!("/v2/{}/manifests/both", proxied(&host, "team/app"));
    for cluster in [&one, &other] {
        assert_eq!(get(cluster.cache.address(), &tag).await.status, 200);
        cluster.pull(&host, &images[0].1).await;
    }
    assert!(is_cached(other.server.admin(), &name_of_app(&host, "both")).await);
    assert!(one.metric("kube_image_keeper_registry_retention_kept_tags_total").await > 0);

    // Its cache learns that the first cluster has released it.
    eventually("it is reported", async || !one.document(&other).await.contains("both")).await;

    // No cluster has it any more. The first cache may hold the tag in memory for a while.
    other.release(&host, "both").await;
    eventually("the tag is gone", async || get(other.cache.address(), &tag).await.status != 200).await;
}
