//! containerd with kuik as a mirror: `kuik-proxy configure-containerd` on a folder of registry hosts, and containerd
//! itself pulling through it, past it, and without it again.

use crate::support::{Containerd, Kuik, configure_containerd as configure, get, proxied, push};
use kuik_testkit::real::{DockerRegistry, RegistryOptions};
use kuik_testkit::{SampleImage, ScriptedRegistry};

/// How many requests the proxy has answered.
async fn answered(proxy: &Kuik) -> u64 {
    let metrics = String::from_utf8(get(proxy.address(), "/metrics").await.body).unwrap();
    let counted =
        metrics.lines().filter(|line| line.starts_with("kube_image_keeper_proxy_http_requests_total{"));
    counted.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Docker's registry is the cache and the upstream. One image is in the cache alone, one upstream alone.
#[tokio::test]
async fn containerd_pulls_through_the_proxy_and_past_it() {
    let [cached, fresh, past, after] = [101, 102, 103, 104].map(SampleImage::small);
    let upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let cache = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    push(&cached, &format!("{}/{}:cached", cache.host(), proxied(&upstream.host(), "team/app")), &[]).await;
    for (tag, image) in [("fresh", &fresh), ("past", &past), ("after", &after)] {
        push(image, &format!("{}/team/app:{tag}", upstream.host()), &[]).await;
    }
    let insecure = ["--insecure-registries", &upstream.host()];
    let proxy = Kuik::proxy(&[cache.host()], &insecure).await;
    let containerd = Containerd::start().await;
    let folder = tempfile::tempdir().unwrap();
    let certs_dir = folder.path().join("certs.d");
    let endpoint = format!("http://{}", proxy.host());
    let hosts = ["--hosts-dir", certs_dir.to_str().unwrap()];
    let named = |tag: &str| format!("{}/team/app:{tag}", upstream.host());

    // For the registry by its name, then for all.
    let to = ["--endpoint", endpoint.as_str()];
    let (said, done) = configure(&certs_dir, &[&to[..], &["--registries", &upstream.host()]].concat()).await;
    assert!(done, "{said}");
    containerd.pull(&named("cached"), &hosts, &cached).await;
    let before = answered(&proxy).await;
    assert!(before > 0, "it is in the cache alone, which the proxy alone asks");
    let (said, done) = configure(&certs_dir, &["--remove"]).await;
    assert!(done && !certs_dir.exists(), "{said}");
    let (said, done) = configure(&certs_dir, &to).await;
    assert!(done && certs_dir.join("_default/hosts.toml").exists(), "{said}");
    containerd.pull(&named("fresh"), &hosts, &fresh).await;
    assert!(answered(&proxy).await > before, "it came from upstream, through the proxy");

    // A rewritten name asks the proxy alone, and needs no hosts.toml.
    let rewritten = format!("{}/{}:fresh", proxy.host(), proxied(&upstream.host(), "team/app"));
    containerd.pull(&rewritten, &["--plain-http"], &fresh).await;
    let rewritten = format!("{}/{}:cached", proxy.host(), proxied(&upstream.host(), "team/app"));
    containerd.pull(&rewritten, &["--plain-http"], &cached).await;

    // If the proxy is down, containerd falls back to the registry itself.
    proxy.kill().await;
    containerd.pull(&named("past"), &hosts, &past).await;
    assert!(configure(&certs_dir, &["--remove"]).await.1 && !certs_dir.exists());
    containerd.pull(&named("after"), &[], &after).await;
}

/// The first host is dead, and the registry itself is gone: only the cache has the image.
#[tokio::test]
async fn containerd_pulls_from_the_cache_if_the_proxy_of_its_node_is_down() {
    let image = SampleImage::small(107);
    let (upstream, folder) = (ScriptedRegistry::start().await.unwrap(), tempfile::tempdir().unwrap());
    upstream.add_image("team/app", "v1", &image);
    let cache = Kuik::open_cache("127.0.0.1:0", &folder.path().join("data"), &upstream.host()).await;
    let proxy = Kuik::proxy(&[cache.host()], &["--insecure-registries", &upstream.host()]).await;
    let certs_dir = folder.path().join("certs.d");
    let [endpoint, fallback] = [&proxy, &cache].map(|kuik| format!("http://{}", kuik.host()));
    let (said, done) =
        configure(&certs_dir, &["--endpoint", &endpoint, "--fallback-endpoint", &fallback]).await;
    assert!(done, "{said}");
    let hosts = ["--hosts-dir", certs_dir.to_str().unwrap()];
    let named = format!("{}/team/app:v1", upstream.host());
    Containerd::start().await.pull(&named, &hosts, &image).await;
    assert!(answered(&proxy).await > 0, "the proxy is the first");

    proxy.kill().await;
    upstream.stop().await;
    let requests = answered(&cache).await;
    Containerd::start().await.pull(&named, &hosts, &image).await;
    assert!(answered(&cache).await > requests, "the cache is the second");
}

/// `:latest` and `imagePullPolicy: Always`, for which there is no CachedImage.
#[tokio::test]
async fn containerd_follows_a_moved_tag_through_the_cache_and_outlives_its_registry() {
    let [old, new] = [105, 106].map(SampleImage::small);
    let (upstream, folder) = (ScriptedRegistry::start().await.unwrap(), tempfile::tempdir().unwrap());
    upstream.add_image("team/app", "latest", &old);
    let cache = Kuik::open_cache("127.0.0.1:0", &folder.path().join("data"), &upstream.host()).await;
    let proxy = Kuik::proxy(&[cache.host()], &["--insecure-registries", &upstream.host()]).await;
    let certs_dir = folder.path().join("certs.d");
    let endpoint = format!("http://{}", proxy.host());
    let (said, done) = configure(&certs_dir, &["--endpoint", &endpoint]).await;
    assert!(done, "{said}");
    let hosts = ["--hosts-dir", certs_dir.to_str().unwrap()];
    let latest = format!("{}/team/app:latest", upstream.host());
    let node = Containerd::start().await;
    node.pull(&latest, &hosts, &old).await;
    upstream.add_image("team/app", "latest", &new);
    node.pull(&latest, &hosts, &new).await;
    upstream.stop().await;
    node.pull(&latest, &hosts, &new).await;
    // A node that does not have the image.
    Containerd::start().await.pull(&latest, &hosts, &new).await;
}
