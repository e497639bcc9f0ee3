//! Freshness per tag, through a node's proxy and a cache: what a pull costs upstream, and what it gets when upstream
//! cannot answer.

use std::sync::Arc;

use futures::future::join_all;
use http::{Method, StatusCode};
use kuik_core::{
    client::{RegistryClient, Timeouts},
    reference::{RepositoryName, Tag},
};
use kuik_proxy::{
    chain::{Chain, Connect as _, Link, Role},
    pull_through::{ManagedTags, PullThrough, PullThroughOptions},
    service::ProxyService,
    stack::HttpReplicas,
};
use kuik_testkit::{Behavior, Gate, Rule, SampleImage, ScriptedRegistry, Target};

use crate::harness::{OverTcp, Reply, ask, client_of, open, service};

const NO_CACHE: (&str, &str) = ("cache-control", "no-cache");
const ONLY_IF_CACHED: (&str, &str) = ("cache-control", "only-if-cached");

/// One managed tag of one repository.
#[derive(Debug)]
struct Managed(RepositoryName, Tag);

impl ManagedTags for Managed {
    fn is_managed(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        (repository, tag) == (&self.0, &self.1)
    }
}

/// A node's proxy over a cache over a registry, which both reach. `app:stable` is managed.
struct Node {
    upstream: ScriptedRegistry,
    cache: Option<OverTcp>,
    cache_service: ProxyService,
    origin: RegistryClient,
    proxy: ProxyService,
    _data: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let (upstream, data) = (ScriptedRegistry::start().await.unwrap(), tempfile::tempdir().unwrap());
        let managed = Managed(upstream.repository("app").unwrap(), "stable".parse().unwrap());
        let origin = client_of(&upstream, Timeouts::default());
        let cache = PullThrough::with_managed_tags(
            open(data.path()),
            Arc::new(origin.clone()),
            PullThroughOptions::default(),
            Arc::new(managed),
        );
        let cache_service = service(cache).0;
        let cache = OverTcp::start(cache_service.clone()).await;
        let replica = HttpReplicas::default().connect(&cache.address.to_string()).unwrap();
        let proxy = service(Chain::new(vec![
            Link::new("cache", Role::Copy, replica),
            Link::new("origin", Role::Origin, Arc::new(origin.clone())),
        ]));
        Self { upstream, cache: Some(cache), cache_service, origin, proxy: proxy.0, _data: data }
    }

    fn push(&self, tags: &[&str], seed: u64) -> SampleImage {
        let image = SampleImage::small(seed);
        for tag in tags {
            self.upstream.add_image("app", tag, &image);
        }
        image
    }

    async fn ask(&self, method: Method, rest: &str, headers: &[(&str, &str)]) -> Reply {
        let name = self.upstream.repository("app").unwrap().encoded().unwrap();
        ask(&self.proxy, method, &format!("/v2/{name}/{rest}"), headers).await
    }

    /// Pulls as containerd does: resolves the tag with `HEAD`, then gets all content by digest.
    async fn pull(&self, tag: &str, image: &SampleImage) -> Reply {
        let resolved = self.ask(Method::HEAD, &format!("manifests/{tag}"), &[]).await;
        assert_eq!(resolved.header("docker-content-digest"), image.index().digest().as_str(), "{tag}");
        let manifests = image.manifests().iter().map(|it| format!("manifests/{}", it.digest()));
        for path in manifests.chain(image.blobs().keys().map(|digest| format!("blobs/{digest}"))) {
            let reply = self.ask(Method::GET, &path, &[]).await;
            assert!(reply.status == StatusCode::OK && reply.body.is_ok(), "{path}: {reply:?}");
        }
        resolved
    }

    /// Number of requests at upstream: `HEAD` and `GET` of manifests, and any of blobs.
    fn asked(&self) -> (usize, usize, usize) {
        let log = self.upstream.log();
        let of = |target, method: Method| {
            log.iter().filter(|entry| entry.target == target && entry.method == method).count()
        };
        (
            of(Target::Manifest, Method::HEAD),
            of(Target::Manifest, Method::GET),
            self.upstream.count(Target::Blob),
        )
    }
}

#[tokio::test]
async fn unmanaged_tag_follows_upstream_with_one_head_per_pull() {
    let node = Node::start().await;
    let old = node.push(&["latest"], 1);
    node.pull("latest", &old).await;
    let (heads, gets, blobs) = node.asked();
    for pulls in 1..=3 {
        assert_eq!(node.pull("latest", &old).await.header("cache-status"), "kuik; hit");
        assert_eq!(node.asked(), (heads + pulls, gets, blobs), "unchanged content is not fetched");
    }
    let new = node.push(&["latest"], 2);
    node.pull("latest", &new).await;
    assert!(node.asked().1 > gets);
}

#[tokio::test]
async fn concurrent_pulls_of_an_unmanaged_tag_share_one_head() {
    let node = Node::start().await;
    let image = node.push(&["latest"], 1);
    node.pull("latest", &image).await;
    let (heads, gets, blobs) = node.asked();
    let gate = Gate::new();
    node.upstream.script(Rule::on(Target::Manifest).does(Behavior::DelayHeaders(gate.clone())));
    let name = node.upstream.repository("app").unwrap().encoded().unwrap();
    let path = format!("/v2/{name}/manifests/latest");
    let pulls = join_all((0..20).map(|_| ask(&node.cache_service, Method::HEAD, &path, &[])));
    let (replies, ()) = tokio::join!(pulls, async {
        node.upstream.wait_for(|log| log.len() > heads + gets + blobs).await;
        gate.open();
    });
    assert!(replies.iter().all(|reply| reply.status == StatusCode::OK));
    assert_eq!(node.asked(), (heads + 1, gets, blobs));
}

#[tokio::test]
async fn managed_tag_is_served_as_it_is_until_it_is_refreshed() {
    let node = Node::start().await;
    let old = node.push(&["stable"], 1);
    node.pull("stable", &old).await;
    let new = node.push(&["stable"], 2);
    let before = node.asked();
    assert_eq!(node.pull("stable", &old).await.header("cache-status"), "kuik; hit");
    assert_eq!(node.asked(), before, "nothing is sent upstream");
    // The controllers' refresh.
    let refreshed = node.ask(Method::GET, "manifests/stable", &[NO_CACHE]).await;
    assert_eq!(refreshed.bytes(), new.index().bytes());
    node.pull("stable", &new).await;
}

#[tokio::test]
async fn only_if_cached_sends_nothing_upstream() {
    let node = Node::start().await;
    let old = node.push(&["latest"], 1);
    let name = node.upstream.repository("app").unwrap().encoded().unwrap();
    let path = format!("/v2/{name}/manifests/latest");
    let cache = node.cache.as_ref().unwrap();
    let stored = async || {
        let seen = cache.send(Method::GET, &path, &[ONLY_IF_CACHED], bytes::Bytes::new()).await;
        (seen.status, seen.body)
    };
    assert_eq!(stored().await.0, StatusCode::NOT_FOUND, "it is not cached");
    assert_eq!(node.asked(), (0, 0, 0));
    node.pull("latest", &old).await;
    node.push(&["latest"], 2);
    let before = node.asked();
    assert_eq!(stored().await, (StatusCode::OK, old.index().bytes().clone()));
    assert_eq!(node.asked(), before);
}

#[tokio::test]
async fn stale_tag_is_pulled_completely_and_marked_whatever_upstream_answers() {
    for status in [401, 403, 404, 429, 500, 503] {
        let node = Node::start().await;
        let image = node.push(&["latest"], 1);
        node.pull("latest", &image).await;
        let (_, gets, blobs) = node.asked();
        let answered = StatusCode::from_u16(status).unwrap();
        node.upstream.script(Rule::on_all().does(Behavior::status(answered)));
        for _ in 0..2 {
            let reply = node.pull("latest", &image).await;
            let told = reply.header("cache-status");
            assert!(told.starts_with("kuik; fwd=stale"), "{status}: {told}");
            assert_eq!(told.contains(&format!("fwd-status={status}")), status < 500, "{status}: {told}");
            assert_eq!(reply.header("warning"), r#"110 kuik "Response is Stale""#, "{status}");
        }
        assert_eq!((node.asked().1, node.asked().2), (gets, blobs), "{status}");
        // It follows the tag again as soon as upstream answers.
        node.upstream.clear_script();
        let new = node.push(&["latest"], 2);
        assert_eq!(node.pull("latest", &new).await.header("warning"), "", "{status}");
    }
}

#[tokio::test]
async fn manifest_that_upstream_refuses_after_its_tag_has_moved_leaves_the_old_image() {
    let node = Node::start().await;
    let old = node.push(&["latest"], 1);
    node.pull("latest", &old).await;
    node.push(&["latest"], 2);
    let refuses = Behavior::status(StatusCode::TOO_MANY_REQUESTS);
    node.upstream.script(Rule::on(Target::Manifest).method(Method::GET).does(refuses));
    let reply = node.pull("latest", &old).await;
    assert_eq!(reply.header("cache-status"), "kuik; fwd=stale; fwd-status=429");
}

#[tokio::test]
async fn tag_outlives_its_registry_and_then_the_cache_is_bypassed() {
    let mut node = Node::start().await;
    let old = node.push(&["latest"], 1);
    node.pull("latest", &old).await;
    node.upstream.stop().await;
    let reply = node.pull("latest", &old).await;
    assert_eq!(
        (reply.header("cache-status"), reply.header("warning").is_empty()),
        ("kuik; fwd=stale", false)
    );
    node.upstream.resume().await.unwrap();
    let new = node.push(&["latest"], 2);
    node.cache = None;
    node.pull("latest", &new).await;
    drop(node.origin);
}
