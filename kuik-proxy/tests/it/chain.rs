//! Chain of a cache and an origin: which source gets which request, and which error a client gets if all fail.

use std::sync::Arc;

use crate::harness::{SHORT, image_with_layer, read, service};
use http::StatusCode;
use kuik_core::{
    client::{Alternative, Source, UpstreamRule, Upstreams},
    content::{CacheStatus, ContentSource, Freshness, SourceErrorKind, TagOrDigest},
    reference::RepositoryName,
};
use kuik_proxy::{
    chain::{Chain, Link, Role},
    pull_through::{PullThrough, Revalidate},
};
use kuik_testkit::{Behavior, Rule, ScriptedRegistry, Target};

/// Two registries that both serve `registry.test`: a copy, and the origin.
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
        Arc::new(crate::harness::client_with(upstreams, SHORT))
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
async fn chain_requests_from_the_origin_what_the_copy_lacks_or_refuses() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(1, 100_000);
    origin.add_image("app", "v1", &image);
    for status in [404, 401, 403, 429, 500, 503, 200] {
        copy.clear_script();
        copy.script(Rule::on_all().does(Behavior::status(StatusCode::from_u16(status).unwrap())));
        let manifest = chain.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap();
        assert_eq!(manifest.content.digest(), image.index().digest(), "{status}");
    }
    copy.stop().await;
    let blob = chain.blob(&app, &digest, Default::default()).await.unwrap();
    assert_eq!(read(blob.content).await.0, bytes);
    assert_eq!(chain.blob_size(&app, &digest).await.unwrap().content, bytes.len() as u64);
}

#[tokio::test]
async fn chain_does_not_contact_the_origin_for_content_of_the_copy() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(2, 100_000);
    copy.add_image("app", "v1", &image);
    let status = [("cache-status".parse().unwrap(), Some("kuik; hit".parse().unwrap()))];
    copy.script(Rule::on(Target::Manifest).does(Behavior::Headers(status.into())));
    let manifest = chain.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap();
    assert_eq!(manifest.cache_status, CacheStatus::Cache, "a cache hit is reported");
    let blob = chain.blob(&app, &digest, Default::default()).await.unwrap();
    assert_eq!(blob.cache_status, CacheStatus::Upstream);
    assert_eq!(read(blob.content).await.0, bytes);
    assert!(origin.log().is_empty());
}

#[tokio::test]
async fn chain_returns_the_most_actionable_error() {
    let Two { copy, origin, chain, app } = two().await;
    let failure = async || {
        let error = chain.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap_err();
        (error.kind(), error.is_unreachable())
    };
    assert_eq!(failure().await, (SourceErrorKind::NotFound, false), "the origin is believed");
    let limited = Behavior::status(StatusCode::TOO_MANY_REQUESTS);
    copy.script(Rule::on_all().does(limited));
    origin.stop().await;
    assert_eq!(failure().await, (SourceErrorKind::RateLimited, false));
    copy.clear_script();
    assert_eq!(
        failure().await,
        (SourceErrorKind::Unavailable, true),
        "no source can tell that it does not exist"
    );
}

#[tokio::test]
async fn broken_body_is_not_resumed_from_another_source() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(3, 100_000);
    copy.add_image("app", "v1", &image);
    origin.add_image("app", "v1", &image);
    copy.script(Rule::on(Target::Blob).times(1).does(Behavior::Truncate { after: 1000 }));
    let (got, broken) = read(chain.blob(&app, &digest, Default::default()).await.unwrap().content).await;
    assert!(broken.is_some() && bytes.starts_with(&got));
    assert_eq!(origin.count(Target::Blob), 0);
}

#[tokio::test]
async fn unsatisfiable_range_is_a_final_answer() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(4, 100_000);
    copy.add_image("app", "v1", &image);
    let (proxy, _) = service(chain);
    let path = format!("/v2/{}/blobs/{digest}", app.encoded().unwrap());
    let range = format!("bytes={}-", bytes.len());
    let reply = crate::harness::ask(&proxy, http::Method::GET, &path, &[("range", &range)]).await;
    assert_eq!(reply.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(reply.header("content-range"), format!("bytes */{}", bytes.len()));
    assert_eq!(origin.count(Target::Blob), 0);
}

#[tokio::test]
async fn html_page_is_not_accepted_as_a_blob() {
    let Two { copy, origin, chain, app } = two().await;
    let (image, digest, bytes) = image_with_layer(5, 1000);
    origin.add_image("app", "v1", &image);
    let headers = [("content-type".parse().unwrap(), "text/html; charset=utf-8".parse().unwrap())];
    let page = Behavior::Answer {
        status: StatusCode::OK,
        headers: headers.into_iter().collect(),
        body: "<html>please log in</html>".into(),
    };
    copy.script(Rule::on_all().does(page));
    assert_eq!(chain.blob_size(&app, &digest).await.unwrap().content, bytes.len() as u64);
    assert!(origin.count(Target::Blob) > 0);
}

#[tokio::test]
async fn corrupt_report_reaches_the_client_through_pull_through_and_chain() {
    let (mirror, origin) =
        (ScriptedRegistry::start().await.unwrap(), ScriptedRegistry::start().await.unwrap());
    let (image, digest, bytes) = image_with_layer(3, 100_000);
    for registry in [&mirror, &origin] {
        registry.add_image("app", "v1", &image);
    }
    mirror.script(Rule::on(Target::Blob).does(Behavior::WrongBytes));
    let at = |registry: &ScriptedRegistry| Alternative::new(&registry.url()).unwrap();
    let rule = UpstreamRule::new("registry.test").unwrap();
    let rule = rule.with_alternative(at(&mirror)).with_source(Source::At(at(&origin)));
    let client = crate::harness::client_with(Upstreams::default().with_rule(rule).unwrap(), SHORT);
    let chain = Chain::new(vec![Link::new("origin", Role::Origin, Arc::new(client))]);
    let data = tempfile::tempdir().unwrap();
    let never = crate::harness::options(Revalidate::Never);
    let cache = PullThrough::new(crate::harness::open(data.path()), Arc::new(chain), never);

    let app = RepositoryName::new("registry.test", "app").unwrap();
    cache.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap();
    let get = async || match cache.blob(&app, &digest, Default::default()).await {
        Ok(blob) => read(blob.content).await,
        Err(error) => (Vec::new(), Some(error)),
    };
    let failure = get().await.1.expect("the mirror's bytes are not those of the digest");
    assert_eq!(failure.kind(), SourceErrorKind::InvalidContent, "{failure:?}");
    assert_eq!(get().await.0, bytes, "the next attempt goes to another upstream");
}
