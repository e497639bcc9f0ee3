//! Outage test: containerd pulls through `kuik-proxy` and `kuik-registry` while one component after another is down. Each
//! case is a row of the table in `docs/outages.md`, which contains the results of this test.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{Containerd, Kuik, Tmpfs, proxied, push};
use kuik_testkit::real::{DockerRegistry, RegistryOptions, free_address};
use kuik_testkit::{Access, Behavior, Gate, Rule, SampleImage, ScriptedRegistry, Target};

/// Time limit for a user to get the image or an error (`ctr` tries twice).
const BOUND: Duration = Duration::from_secs(45);

const PULLED: &str = "the image";

/// Returns the result of `ctr images pull`.
async fn saw(containerd: &Containerd, reference: &str, image: &SampleImage) -> String {
    let start = Instant::now();
    let pulled = containerd.try_pull(reference, &["--plain-http"]).await;
    let took = start.elapsed();
    assert!(took < BOUND, "{reference} took {took:?}");
    println!("{reference}: {took:?}");
    match pulled {
        Ok(()) => {
            containerd.pull(reference, &["--plain-http"], image).await;
            PULLED.to_owned()
        }
        Err(error) => told(&error.to_string()),
    }
}

/// The part of an error of `ctr` that says what happened: a status, or the last of its words.
fn told(error: &str) -> String {
    let line = error.trim().lines().last().unwrap_or_default();
    let last = line.rsplit(": ").next().unwrap_or(line).trim();
    format!("`{last}`")
}

/// Results by case; all must be in the documentation.
fn documented(seen: &[(&str, String)]) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/outages.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<_> = seen.iter().map(|(case, sees)| format!("| {case} | {sees} |")).collect();
    println!("{}", rows.join("\n"));
    let missing: Vec<_> = rows.iter().filter(|row| !page.lines().any(|line| line == *row)).collect();
    assert!(missing.is_empty(), "docs/outages.md does not say what was seen:\n{missing:#?}");
}

/// A node: containerd over a proxy over a cache.
struct Node {
    containerd: Containerd,
    proxy: Kuik,
    cache: Option<Kuik>,
    _data: tempfile::TempDir,
}

impl Node {
    /// Over a cache in `data`, or in a folder of its own; `upstream` is spoken to over plain http.
    async fn start(upstream: &str, data: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let insecure = ["--insecure-registries", upstream];
        let through = [&["--pull-through"], insecure.as_slice()].concat();
        let cache = Kuik::registry(data.unwrap_or(folder.path()), &through).await;
        let proxy = Kuik::proxy(&[cache.host()], &insecure).await;
        Self { containerd: Containerd::start().await, proxy, cache: Some(cache), _data: folder }
    }

    fn name(&self, upstream: &str, tag: &str) -> String {
        format!("{}/{}:{tag}", self.proxy.host(), proxied(upstream, "team/app"))
    }

    async fn saw(&self, upstream: &str, tag: &str, image: &SampleImage) -> String {
        saw(&self.containerd, &self.name(upstream, tag), image).await
    }
}

#[tokio::test]
async fn the_upstream_is_stopped() {
    let [known, new] = [201, 202].map(SampleImage::small);
    let mut upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let host = upstream.host();
    push(&known, &format!("{host}/team/app:known"), &[]).await;
    push(&new, &format!("{host}/team/app:new"), &[]).await;
    let first = Node::start(&host, None).await;
    assert_eq!(first.saw(&host, "known", &known).await, PULLED);
    upstream.stop().await.unwrap();
    // Another node has nothing yet.
    let other = Containerd::start().await;
    let before = saw(&other, &first.name(&host, "known"), &known).await;
    let unknown = first.saw(&host, "new", &new).await;
    upstream.resume().await.unwrap();
    documented(&[
        ("the upstream is stopped; the image is cached", before),
        ("the upstream is stopped; the image is not cached", unknown),
        ("the upstream is running again; the image is not cached", first.saw(&host, "new", &new).await),
    ]);
}

#[tokio::test]
async fn the_cache_is_stopped() {
    let [one, two] = [203, 204].map(SampleImage::small);
    let upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let host = upstream.host();
    push(&one, &format!("{host}/team/app:one"), &[]).await;
    push(&two, &format!("{host}/team/app:two"), &[]).await;
    let mut node = Node::start(&host, None).await;
    assert_eq!(node.saw(&host, "one", &one).await, PULLED);
    node.cache.take().unwrap().kill().await;
    documented(&[("the cache is stopped", node.saw(&host, "two", &two).await)]);
}

#[tokio::test]
async fn the_caches_disk_is_full() {
    let image = SampleImage::builder().seed(205).platform("linux", "amd64").layer(6 << 20).build();
    let upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let host = upstream.host();
    push(&image, &format!("{host}/team/app:large"), &[]).await;
    let disk = Tmpfs::mount(4).await;
    let node = Node::start(&host, Some(disk.path())).await;
    documented(&[("the cache's disk is full", node.saw(&host, "large", &image).await)]);
}

#[tokio::test]
async fn the_token_server_is_down() {
    let [known, new] = [206, 207].map(SampleImage::small);
    let upstream = ScriptedRegistry::start().await.unwrap();
    let host = upstream.host();
    upstream.add_image("team/app", "known", &known);
    upstream.set_access(Access::anonymous_tokens());
    let node = Node::start(&host, None).await;
    assert_eq!(node.saw(&host, "known", &known).await, PULLED);
    upstream.revoke_tokens();
    upstream.add_image("team/app", "new", &new);
    upstream.script(Rule::on(Target::Token).does(Behavior::Refuse));
    let other = Containerd::start().await;
    documented(&[
        (
            "the token server is down; the image is cached",
            saw(&other, &node.name(&host, "known"), &known).await,
        ),
        ("the token server is down; the image is not cached", node.saw(&host, "new", &new).await),
    ]);
}

#[tokio::test]
async fn names_do_not_resolve() {
    let image = SampleImage::small(208);
    let cache = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    push(&image, &format!("{}/registry.test/team/app:known", cache.host()), &[]).await;
    // A missing name server, for this process only.
    let folder = tempfile::tempdir().unwrap();
    let resolver = folder.path().join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n").unwrap();
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"", resolver.display());
    let launcher = ["unshare", "--mount", "sh", "-c", &script];
    let proxy = Kuik::proxy_at("127.0.0.1:0", &[cache.host()], &[], &[], &launcher).await;
    let containerd = Containerd::start().await;
    let name = |tag: &str| format!("{}/registry.test/team/app:{tag}", proxy.host());
    documented(&[
        ("DNS fails; the image is cached", saw(&containerd, &name("known"), &image).await),
        ("DNS fails; the image is not cached", saw(&containerd, &name("new"), &image).await),
    ]);
}

#[tokio::test]
async fn the_proxy_is_killed_in_the_middle_of_a_pull() {
    let image = SampleImage::builder().seed(209).platform("linux", "amd64").layer(3 << 20).build();
    let upstream = ScriptedRegistry::start().await.unwrap();
    let host = upstream.host();
    upstream.add_image("team/app", "large", &image);
    let gate = Gate::new();
    let stall = Behavior::Stall { after: 1 << 20, until: gate.clone() };
    upstream.script(Rule::on(Target::Blob).does(stall));
    let insecure = ["--insecure-registries", &host];
    let at = free_address().await.unwrap().to_string();
    // No cache, so that what breaks is what containerd reads.
    let nowhere = ["127.0.0.1:1".to_owned()];
    let proxy = Kuik::proxy_at(&at, &nowhere, &insecure, &[], &[]).await;
    let containerd = Containerd::start().await;
    let reference = format!("{at}/{}:large", proxied(&host, "team/app"));
    let pulling = saw(&containerd, &reference, &image);
    let killing = async {
        upstream.wait_for(|log| log.iter().any(|entry| entry.target == Target::Blob)).await;
        proxy.kill().await;
        gate.open();
        Kuik::proxy_at(&at, &nowhere, &insecure, &[], &[]).await
    };
    let (first, _proxy) = futures::join!(pulling, killing);
    println!("the pull that was interrupted: {first}");
    let next = saw(&containerd, &reference, &image).await;
    // Whether containerd reaches the proxy while it is down is a matter of milliseconds.
    let sees = format!("{next}, immediately or after a retry");
    documented(&[("the proxy is killed and restarted during a pull", sees)]);
}
