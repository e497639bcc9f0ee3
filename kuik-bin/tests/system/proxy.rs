//! `kuik-proxy` on a node: pulls through the cache, past a cache that is down, and through the cache again.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{Kuik, blob_data, eventually, get, head, proxied, pull_with_skopeo, push};
use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, RegistryOptions};
use tokio::net::{TcpSocket, TcpStream};

/// Time that a cache that is down may cost a request: `response_timeout` (950 ms), and half a second for everything else.
const DOWN: Duration = Duration::from_millis(1450);

/// The least that it costs the request that notices: a connect timeout. Later requests do not wait.
const NOTICED: Duration = Duration::from_millis(400);

/// The same for a cache that froze while it worked: `busy_timeout` (4 s), since it is more likely busy than down.
const FROZEN: Duration = Duration::from_millis(4500);

/// Whether a cache in `data_dir` has every blob of an image.
fn has_all(data_dir: &Path, image: &SampleImage) -> bool {
    image.blobs().keys().all(|digest| blob_data(data_dir, digest).exists())
}

fn has_none(data_dir: &Path, image: &SampleImage) -> bool {
    image.blobs().keys().all(|digest| !blob_data(data_dir, digest).exists())
}

async fn exposes(address: SocketAddr, series: &str) -> bool {
    String::from_utf8(get(address, "/metrics").await.body).unwrap().contains(series)
}

/// An address of this machine that answers no SYN: its queue of connections is full.
async fn black_hole() -> (SocketAddr, impl Drop) {
    struct Held(#[allow(dead_code, reason = "held, not used")] tokio::net::TcpListener, Vec<TcpStream>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.1.clear();
        }
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        queued.push(connected.unwrap());
    }
    (address, Held(listener, queued))
}

#[tokio::test]
async fn the_cache_is_used_passed_by_and_used_again() {
    let images: Vec<_> = (61..64).map(SampleImage::small).collect();
    let origin = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    for (n, image) in images.iter().enumerate() {
        push(image, &format!("{}/app:v{n}", origin.host()), &[]).await;
    }
    let insecure = ["--insecure-registries", &origin.host()];
    let data = tempfile::tempdir().unwrap();
    let through = [&["--pull-through"], insecure.as_slice()].concat();
    let cache = Kuik::registry(data.path(), &through).await;
    let at = cache.host();
    let proxy = Kuik::proxy(std::slice::from_ref(&at), &insecure).await;
    let name = format!("{}/{}", proxy.host(), proxied(&origin.host(), "app"));

    pull_with_skopeo(&format!("{name}:v0"), &images[0]).await;
    eventually("the cache keeps what went through it", async || has_all(data.path(), &images[0])).await;

    cache.kill().await;
    let start = Instant::now();
    pull_with_skopeo(&format!("{name}:v1"), &images[1]).await;
    println!("a pull past a cache that was killed: {:?}", start.elapsed());
    assert!(has_none(data.path(), &images[1]));
    proxy.logs("cache replica unreachable").await;

    let _cache = Kuik::registry_at(&at, data.path(), &through).await;
    let start = Instant::now();
    proxy.logs("is back").await;
    println!("a cache that came back is used after {:?}", start.elapsed());
    pull_with_skopeo(&format!("{name}:v2"), &images[2]).await;
    eventually("the cache is used again", async || has_all(data.path(), &images[2])).await;
}

#[tokio::test]
async fn a_cache_that_answers_nothing_costs_little_once() {
    let image = SampleImage::small(65);
    let origin = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    push(&image, &format!("{}/app:v1", origin.host()), &[]).await;
    let insecure = ["--insecure-registries", &origin.host()];
    let target = format!("/v2/{}/manifests/v1", proxied(&origin.host(), "app"));
    let timed = async |proxy: &Kuik| {
        let start = Instant::now();
        assert_eq!(get(proxy.address(), &target).await.status, 200);
        start.elapsed()
    };

    // Both replicas of the cache drop what is sent to them.
    let ((one, _one), (two, _two)) = (black_hole().await, black_hole().await);
    let proxy = Kuik::proxy(&[one.to_string(), two.to_string()], &insecure).await;
    let known = async |proxy: &Kuik, count: usize| {
        let series = format!("kube_image_keeper_proxy_cache_replicas {count}");
        eventually("the replicas are known", async || exposes(proxy.address(), &series).await).await;
    };
    known(&proxy, 2).await;
    let (first, second) = (timed(&proxy).await, timed(&proxy).await);
    println!("two replicas that drop packets cost {first:?}, then {second:?}");
    assert!(NOTICED < first && first < DOWN && second < NOTICED, "{first:?}, {second:?}");
    let away = "kube_image_keeper_proxy_cache_replicas_away 2";
    eventually("both breakers are open", async || exposes(proxy.address(), away).await).await;

    // The kernel of a process that is stopped takes connections still.
    let data = tempfile::tempdir().unwrap();
    let through = [&["--pull-through"], insecure.as_slice()].concat();
    let cache = Kuik::registry(data.path(), &through).await;
    let proxy = Kuik::proxy(&[cache.host()], &insecure).await;
    known(&proxy, 1).await;
    cache.freeze();
    let (first, second) = (timed(&proxy).await, timed(&proxy).await);
    println!("a replica that is frozen costs {first:?}, then {second:?}");
    assert!(NOTICED < first && first < DOWN && second < NOTICED, "{first:?}, {second:?}");
    cache.thaw();
    proxy.logs("is back").await;

    // It has just responded: giving up on it too early means an upstream fetch for each node (ADR 12).
    eventually("the cache is used again", async || {
        let cached = get(proxy.address(), &target).await.header("cache-status").to_owned();
        cached.contains("hit")
    })
    .await;
    cache.freeze();
    let (first, second) = (timed(&proxy).await, timed(&proxy).await);
    println!("a replica that froze while it worked costs {first:?}, then {second:?}");
    assert!(DOWN < first && first < FROZEN && second < NOTICED, "{first:?}, {second:?}");
}

#[tokio::test]
async fn cached_content_is_served_while_the_origin_is_down() {
    let image = SampleImage::small(66);
    let mut origin = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    push(&image, &format!("{}/app:v1", origin.host()), &[]).await;
    let insecure = ["--insecure-registries", &origin.host()];
    let data = tempfile::tempdir().unwrap();
    let through = [&["--pull-through"], insecure.as_slice()].concat();
    let cache = Kuik::registry(data.path(), &through).await;
    let proxy = Kuik::proxy(&[cache.host()], &insecure).await;
    let name = proxied(&origin.host(), "app");
    let reference = format!("{}/{name}:v1", proxy.host());
    pull_with_skopeo(&reference, &image).await;
    eventually("the cache keeps it", async || has_all(data.path(), &image)).await;

    origin.stop().await.unwrap();
    // A 503 of the cache is about its upstream: the cache itself is well.
    let missing = head(proxy.address(), &format!("/v2/{name}/manifests/v9")).await;
    assert_eq!(missing.status, 503, "no source can confirm that the tag is missing");
    pull_with_skopeo(&reference, &image).await;
    assert!(!proxy.log().contains("cache replica unreachable"), "{}", proxy.log());
}

#[tokio::test]
async fn an_origin_that_says_no_is_believed() {
    let origin = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let proxy = Kuik::proxy(&["127.0.0.1:1".to_owned()], &["--insecure-registries", &origin.host()]).await;
    let name = proxied(&origin.host(), "app");
    let missing = get(proxy.address(), &format!("/v2/{name}/manifests/v1")).await;
    assert_eq!((missing.status, missing.error_code().as_str()), (404, "MANIFEST_UNKNOWN"));
    assert_eq!(get(proxy.address(), "/v2/").await.status, 200);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(proxy.address(), path).await.status, 200, "{path}");
    }
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("listening for admin requests")).unwrap();
    let address = line.split_once("address=").unwrap().1.trim().parse().unwrap();
    assert!(exposes(address, "kube_image_keeper_proxy_http_requests_total").await);
    assert_eq!(get(address, "/v2/").await.status, 404, "nothing is pulled there");
}
