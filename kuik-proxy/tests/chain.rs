//! A chain of a cache and an origin: who is asked for what, and what a client learns where nobody can answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod rig;

use std::sync::Arc;

use http::StatusCode;
use kuik_core::testkit::{Behaviour, Rule, ScriptedRegistry, Target};
use kuik_core::{
    content::{ContentSource, Freshness, Origin, SourceErrorKind, TagOrDigest},
    reference::RepositoryName,
    registry::Upstreams,
};
use kuik_proxy::chain::{Chain, Link, Role};
use rig::{SHORT, image_with_layer, read, service};

/// Two registries that both stand for `registry.test`: a copy, and the origin.
struct Two {
    copy: ScriptedRegistry,
    origin: ScriptedRegistry,
    chain: Chain,
    app: RepositoryName,
}

async fn two() -> Two {
    let (copy, origin) = (ScriptedRegistry::start().await.unwrap(), ScriptedRegistry::start().await.unwrap());
    let source = |registry: &ScriptedRegistry| -> Arc<dyn ContentSource> {
        let upstreams =
            Upstreams::default().overriding(&format!("registry.test={}", registry.url())).unwrap();
        Arc::new(rig::client_with(upstreams, SHORT))
    };
    let chain = Chain::new(vec![
        Link::new("copy", Role::Copy, source(&copy)),
        Link::new("origin", Role::Origin, source(&origin)),
    ]);
    Two { copy, origin, chain, app: RepositoryName::new("registry.test", "app").unwrap() }
}

fn tag(text: &str) -> TagOrDigest {
    TagOrDigest::Tag(text.parse().unwrap())
}

#[tokio::test]
async fn what_the_copy_lacks_or_refuses_the_origin_is_asked_for() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(1, 100_000);
    origin.add_image("app", "v1", &image);
    for status in [404, 401, 403, 429, 500, 503, 200] {
        copy.clear_script();
        copy.script(Rule::on_all().does(Behaviour::status(StatusCode::from_u16(status).unwrap())));
        let manifest = chain.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap();
        assert_eq!(manifest.content.digest(), image.index().digest(), "{status}");
    }
    copy.stop().await;
    let blob = chain.blob(&app, &digest, Default::default()).await.unwrap();
    assert_eq!(read(blob.content).await.0, bytes);
    assert_eq!(chain.blob_size(&app, &digest).await.unwrap().content, bytes.len() as u64);
}

#[tokio::test]
async fn what_the_copy_has_the_origin_is_not_asked_for() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(2, 100_000);
    copy.add_image("app", "v1", &image);
    let status = [("cache-status".parse().unwrap(), Some("kuik; hit".parse().unwrap()))];
    copy.script(Rule::on(Target::Manifest).does(Behaviour::Headers(status.into())));
    let manifest = chain.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap();
    assert_eq!(manifest.origin, Origin::Cache, "a cache that had it says so");
    let blob = chain.blob(&app, &digest, Default::default()).await.unwrap();
    assert_eq!(blob.origin, Origin::Upstream);
    assert_eq!(read(blob.content).await.0, bytes);
    assert!(origin.log().is_empty());
}

#[tokio::test]
async fn the_most_useful_failure_is_told() {
    let Two { copy, origin, chain, app } = two().await;
    let failure = async || {
        let error = chain.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap_err();
        (error.kind(), error.is_unreachable())
    };
    assert_eq!(failure().await, (SourceErrorKind::NotFound, false), "the origin is believed");
    let limited = Behaviour::status(StatusCode::TOO_MANY_REQUESTS);
    copy.script(Rule::on_all().does(limited));
    origin.stop().await;
    assert_eq!(failure().await, (SourceErrorKind::RateLimited, false));
    copy.clear_script();
    assert_eq!(
        failure().await,
        (SourceErrorKind::Unavailable, true),
        "nobody can say that it does not exist"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_gone_on_with_by_somebody_else() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(3, 100_000);
    copy.add_image("app", "v1", &image);
    origin.add_image("app", "v1", &image);
    copy.script(Rule::on(Target::Blob).times(1).does(Behaviour::Truncate { after: 1000 }));
    let (got, broken) = read(chain.blob(&app, &digest, Default::default()).await.unwrap().content).await;
    assert!(broken.is_some() && bytes.starts_with(&got));
    assert_eq!(origin.count(Target::Blob), 0);
}

#[tokio::test]
async fn a_range_outside_the_blob_is_an_answer() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(4, 100_000);
    copy.add_image("app", "v1", &image);
    let (proxy, _) = service(chain);
    let path = format!("/v2/{}/blobs/{digest}", app.encoded().unwrap());
    let range = format!("bytes={}-", bytes.len());
    let reply = rig::ask(&proxy, http::Method::GET, &path, &[("range", &range)]).await;
    assert_eq!(reply.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(reply.header("content-range"), format!("bytes */{}", bytes.len()));
    assert_eq!(origin.count(Target::Blob), 0);
}

#[tokio::test]
async fn a_web_page_is_not_a_blob() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(5, 1000);
    origin.add_image("app", "v1", &image);
    let headers = [("content-type".parse().unwrap(), "text/html; charset=utf-8".parse().unwrap())];
    let page = Behaviour::Answer {
        status: StatusCode::OK,
        headers: headers.into_iter().collect(),
        body: "<html>please log in</html>".into(),
    };
    copy.script(Rule::on_all().does(page));
    assert_eq!(chain.blob_size(&app, &digest).await.unwrap().content, bytes.len() as u64);
    assert!(origin.count(Target::Blob) > 0);
}
