//! What a user sees when something is away: containerd pulls through `kuik-proxy` and `kuik-registry` while one part
//! after another fails. Each case is a row of the table in `docs/outages.md`, which says what this test saw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail, and prints its table"
)]

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use kuik_core::testkit::{
    Access, Behaviour, Gate, Rule, SampleImage, ScriptedRegistry, Target,
    real::{DockerRegistry, RegistryOptions, free_address},
};
use support::{Containerd, Kuik, Tmpfs, proxied, push};

/// Within which a user gets the image, or is told why not (`ctr` asks twice).
const BOUND: Duration = Duration::from_secs(45);

const PULLED: &str = "the image";

/// What `ctr images pull` of an image comes to.
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

/// What was seen, case by case; all of it has to be in the documentation.
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
        ("the upstream is stopped; the image was pulled before", before),
        ("the upstream is stopped; nobody has pulled the image", unknown),
        ("the upstream is back; nobody has pulled the image", first.saw(&host, "new", &new).await),
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
    upstream.script(Rule::on(Target::Token).does(Behaviour::Refuse));
    let other = Containerd::start().await;
    documented(&[
        (
            "the token server is down; the image was pulled before",
            saw(&other, &node.name(&host, "known"), &known).await,
        ),
        ("the token server is down; nobody has pulled the image", node.saw(&host, "new", &new).await),
    ]);
}

#[tokio::test]
async fn names_do_not_resolve() {
    let image = SampleImage::small(208);
    let cache = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    push(&image, &format!("{}/registry.test/team/app:known", cache.host()), &[]).await;
    // A name server that is not there, for this process alone.
    let folder = tempfile::tempdir().unwrap();
    let resolver = folder.path().join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n").unwrap();
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"", resolver.display());
    let launcher = ["unshare", "--mount", "sh", "-c", &script];
    let proxy = Kuik::proxy_at("127.0.0.1:0", &[cache.host()], &[], &[], &launcher).await;
    let containerd = Containerd::start().await;
    let name = |tag: &str| format!("{}/registry.test/team/app:{tag}", proxy.host());
    documented(&[
        ("DNS fails; the image is in the cache", saw(&containerd, &name("known"), &image).await),
        ("DNS fails; the image is not in the cache", saw(&containerd, &name("new"), &image).await),
    ]);
}

#[tokio::test]
async fn the_proxy_is_killed_in_the_middle_of_a_pull() {
    let image = SampleImage::builder().seed(209).platform("linux", "amd64").layer(3 << 20).build();
    let upstream = ScriptedRegistry::start().await.unwrap();
    let host = upstream.host();
    upstream.add_image("team/app", "large", &image);
    let gate = Gate::new();
    let stall = Behaviour::Stall { after: 1 << 20, until: gate.clone() };
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
    // Whether containerd meets the proxy while it is away is a matter of milliseconds.
    let sees = format!("{next}, at once or with the next try");
    documented(&[("the proxy is killed and started again in the middle of a pull", sees)]);
}
