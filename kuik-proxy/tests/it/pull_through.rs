//! Pull-through cache: which requests reach upstream, how often, and what is served if upstream fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    reason = "a test may fail"
)]

use std::{sync::Arc, time::Duration};

use crate::harness::{
    Harness, ask, image_with_layer,
    manual_upstream::{ManifestMode, ManualUpstream, count},
    open, options,
};
use futures::future::join_all;
use http::{Method, StatusCode};
use kuik_core::{
    client::Timeouts,
    content::{
        ByteRange, CacheStatus, ContentSource, ContentStore as _, Freshness, RegistryStore as _,
        SourceErrorKind, TagOrDigest,
    },
    reference::RepositoryName,
};
use kuik_proxy::{
    pull_through::{PullThrough, Revalidate},
    store::FilesystemStore,
};
use kuik_testkit::{Behavior, Gate, Rule, SampleImage, Target};

const ALWAYS: Revalidate = Revalidate::After(Duration::ZERO);
const HOUR: Revalidate = Revalidate::After(Duration::from_secs(3600));
const NO_CACHE: (&str, &str) = ("cache-control", "max-age=0, No-Cache");

async fn harness_with_image(revalidate: Revalidate) -> (Harness, SampleImage) {
    let harness = Harness::with(Timeouts::default(), options(revalidate)).await;
    let image = SampleImage::small(1);
    harness.upstream.add_image("app", "latest", &image);
    (harness, image)
}

/// Number of manifest requests at upstream, by method.
fn asked(harness: &Harness) -> (usize, usize) {
    let log = harness.upstream.log();
    let of = |method: Method| {
        log.iter().filter(|entry| entry.target == Target::Manifest && entry.method == method).count()
    };
    (of(Method::HEAD), of(Method::GET))
}

#[tokio::test]
async fn image_is_fetched_once_and_served_after_its_registry_is_gone() {
    let (harness, image) = harness_with_image(HOUR).await;
    let mut paths = vec![harness.path("app", "manifests/latest")];
    paths.extend(
        image.manifests().iter().map(|it| harness.path("app", &format!("manifests/{}", it.digest()))),
    );
    paths.extend(image.blobs().keys().map(|digest| harness.path("app", &format!("blobs/{digest}"))));
    let mut first = Vec::new();
    for path in &paths {
        let reply = harness.get(path).await;
        assert_eq!(
            (reply.status, reply.header("cache-status")),
            (StatusCode::OK, "kuik; fwd=miss"),
            "{path}"
        );
        first.push(reply);
    }
    harness.cache.drain().await;
    harness.upstream.stop().await;
    let asked = harness.upstream.log().len();
    let harness = harness.restarted(options(Revalidate::Never)).await;
    for (path, first) in paths.iter().zip(&first) {
        let again = harness.get(path).await;
        assert_eq!((again.status, again.header("cache-status")), (StatusCode::OK, "kuik; hit"), "{path}");
        assert_eq!(again.bytes(), first.bytes());
        for header in ["content-type", "content-length", "docker-content-digest", "etag"] {
            assert_eq!(again.header(header), first.header(header), "{path}: {header}");
            assert_ne!(again.header(header), "", "{path}: {header}");
        }
        let head = harness.head(path).await;
        assert_eq!((head.status, head.bytes().len()), (StatusCode::OK, 0));
        for header in ["content-type", "content-length", "docker-content-digest", "etag"] {
            assert_eq!(head.header(header), first.header(header), "{path}: {header}");
        }
    }
    assert_eq!(harness.upstream.log().len(), asked, "upstream is not asked again");
    let host = harness.upstream.host();
    let series = format!(
        r#"proxy_http_requests_total{{registry="{host}",statusCode="200",cacheHit="true"}} {}"#,
        2 * paths.len()
    );
    assert!(harness.exposed().contains(&series), "{}", harness.exposed());
}

#[tokio::test]
async fn digest_of_a_fetched_tag_is_cached() {
    let (harness, image) = harness_with_image(HOUR).await;
    let head = harness.head(&harness.path("app", "manifests/latest")).await;
    let digest = head.header("docker-content-digest");
    assert_eq!(digest, image.index().digest().as_str());
    assert_eq!(
        harness.get(&harness.path("app", &format!("manifests/{digest}"))).await.bytes(),
        image.index().bytes()
    );
    assert_eq!(asked(&harness), (0, 1));
    let other = harness.get(&harness.path("other", &format!("manifests/{digest}"))).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND, "of this repository alone");
}

#[tokio::test]
async fn matching_if_none_match_gets_304() {
    let (harness, image) = harness_with_image(HOUR).await;
    let (blob, _) = image.blobs().iter().next().unwrap();
    let manifest = (harness.path("app", "manifests/latest"), image.index().digest());
    let blob = (harness.path("app", &format!("blobs/{blob}")), blob);
    for (path, digest) in [manifest, blob] {
        for _ in 0..2 {
            for held in [format!("\"{digest}\""), format!("\"x\", W/\"{digest}\""), "*".to_owned()] {
                let reply = harness.get_with(&path, &[("if-none-match", &held)]).await;
                assert_eq!(reply.status, StatusCode::NOT_MODIFIED, "{path} {held}");
                assert_eq!((reply.bytes().len(), reply.header("content-length")), (0, ""));
                assert_eq!(reply.header("etag"), format!("\"{digest}\""));
            }
            let reply = harness.get_with(&path, &[("if-none-match", "\"sha256:other\"")]).await;
            assert_eq!(reply.status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn tag_is_revalidated_when_due() {
    for (revalidate, headers, heads) in [
        (Revalidate::Never, None, 0),
        (HOUR, None, 0),
        (ALWAYS, None, 3),
        (Revalidate::Never, Some(NO_CACHE), 3),
        (HOUR, Some(NO_CACHE), 3),
    ] {
        let (harness, image) = harness_with_image(revalidate).await;
        let path = harness.path("app", "manifests/latest");
        harness.get(&path).await;
        for _ in 0..3 {
            let reply = harness.get_with(&path, headers.as_slice()).await;
            assert_eq!((reply.header("cache-status"), reply.bytes()), ("kuik; hit", image.index().bytes()));
        }
        assert_eq!(asked(&harness), (heads, 1), "{revalidate:?} {headers:?}");
        // Content at a digest never changes.
        let by_digest = harness.path("app", &format!("manifests/{}", image.index().digest()));
        harness.get_with(&by_digest, &[NO_CACHE]).await;
        assert_eq!(asked(&harness), (heads, 1));
    }
}

#[tokio::test]
async fn moved_tag_is_fetched() {
    let (harness, old) = harness_with_image(Revalidate::Never).await;
    let path = harness.path("app", "manifests/latest");
    harness.get(&path).await;
    let new = SampleImage::small(2);
    harness.upstream.add_image("app", "latest", &new);
    assert_eq!(harness.get(&path).await.bytes(), old.index().bytes(), "no request was sent");
    let reply = harness.get_with(&path, &[NO_CACHE]).await;
    assert_eq!((reply.header("cache-status"), reply.bytes()), ("kuik; fwd=miss", new.index().bytes()));
    assert_eq!(harness.get(&path).await.bytes(), new.index().bytes());
    let harness = harness.restarted(options(Revalidate::Never)).await;
    harness.upstream.stop().await;
    assert_eq!(harness.get(&path).await.bytes(), new.index().bytes());
    let by_digest = harness.path("app", &format!("manifests/{}", old.index().digest()));
    assert_eq!(
        harness.get(&by_digest).await.bytes(),
        old.index().bytes(),
        "the old one is there by its digest"
    );
}

#[tokio::test]
async fn hung_revalidation_does_not_move_a_tag_back() {
    let (harness, _) = harness_with_image(ALWAYS).await;
    let path = harness.path("app", "manifests/latest");
    harness.get(&path).await;
    let new = SampleImage::small(2);
    harness.upstream.add_image("app", "latest", &new);
    let gate = Gate::new();
    let hangs = Rule::on(Target::Manifest).method(Method::HEAD).times(1);
    harness.upstream.script(hangs.does(Behavior::DelayHeaders(gate.clone())));
    let asked = harness.upstream.log().len();
    let (late, ()) = tokio::join!(harness.get(&path), async {
        harness.upstream.wait_for(|log| log.len() > asked).await;
        assert_eq!(harness.get_with(&path, &[NO_CACHE]).await.bytes(), new.index().bytes());
    });
    assert_eq!(late.bytes(), new.index().bytes(), "another request has seen it move meanwhile");
    harness.upstream.stop().await;
    assert_eq!(harness.get(&path).await.bytes(), new.index().bytes());
}

#[tokio::test]
async fn tag_is_served_stale_if_revalidation_fails() {
    for status in [401, 403, 404, 429, 500] {
        let (harness, image) = harness_with_image(ALWAYS).await;
        let path = harness.path("app", "manifests/latest");
        harness.get(&path).await;
        let status = StatusCode::from_u16(status).unwrap();
        harness.upstream.script(Rule::on_all().does(Behavior::status(status)));
        let reply = harness.get(&path).await;
        let stale = "kuik; fwd=stale";
        let told = if status.is_server_error() {
            stale.to_owned()
        } else {
            format!("{stale}; fwd-status={}", status.as_u16())
        };
        assert_eq!((reply.status, reply.header("cache-status")), (StatusCode::OK, &*told));
        assert_eq!(reply.header("warning"), r#"110 kuik "Response is Stale""#);
        assert_eq!(reply.bytes(), image.index().bytes());
        let series = format!(r#"proxy_stale_served_total{{registry="{}"}} 1"#, harness.upstream.host());
        assert!(harness.exposed().contains(&series), "{}", harness.exposed());
        harness.upstream.clear_script();
        let reply = harness.get(&path).await;
        assert_eq!((reply.header("cache-status"), reply.header("warning")), ("kuik; hit", ""), "{status}");
    }
    let (harness, image) = harness_with_image(ALWAYS).await;
    let path = harness.path("app", "manifests/latest");
    harness.get(&path).await;
    let harness = harness.restarted(options(ALWAYS)).await;
    harness.upstream.stop().await;
    let reply = harness.get(&path).await;
    assert_eq!(reply.header("cache-status"), "kuik; fwd=stale");
    assert_eq!(reply.bytes(), image.index().bytes());
}

/// A cache over a manual upstream, with paused time.
struct Paused {
    upstream: Arc<ManualUpstream>,
    cache: PullThrough,
    latest: TagOrDigest,
    app: RepositoryName,
    store: Arc<FilesystemStore>,
    _data: tempfile::TempDir,
}

impl Paused {
    fn new(age: Duration) -> Self {
        let (upstream, data) = (ManualUpstream::new(), tempfile::tempdir().unwrap());
        let store = open(data.path());
        let cache = PullThrough::new(store.clone(), upstream.clone(), options(Revalidate::After(age)));
        let latest = TagOrDigest::Tag("latest".parse().unwrap());
        let app = RepositoryName::new("registry.example", "app").unwrap();
        Self { upstream, cache, latest, app, store, _data: data }
    }

    async fn cache_status(&self) -> CacheStatus {
        self.cache.manifest(&self.app, &self.latest, Freshness::Cached).await.unwrap().cache_status
    }
}

#[tokio::test(start_paused = true)]
async fn tag_is_due_after_the_revalidation_interval() {
    let paused = Paused::new(Duration::from_secs(60));
    paused.upstream.tag("latest", SampleImage::small(1).index());
    assert_eq!(paused.cache_status().await, CacheStatus::Upstream);
    for (seconds, resolved) in [(59, 0), (2, 1), (58, 1), (3, 2)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        assert_eq!(paused.cache_status().await, CacheStatus::Cache);
        assert_eq!(count(&paused.upstream.tags_resolved), resolved);
    }
    assert_eq!(count(&paused.upstream.manifests_fetched), 1);
}

#[tokio::test(start_paused = true)]
async fn store_changes_of_another_process_are_seen_while_upstream_is_down() {
    let paused = Paused::new(Duration::from_secs(60));
    let (one, two) = (SampleImage::small(1), SampleImage::small(2));
    paused.upstream.tag("latest", one.index());
    assert_eq!(paused.cache_status().await, CacheStatus::Upstream);
    let by_digest = TagOrDigest::Digest(one.index().digest().clone());
    let digest_of = async |at: &TagOrDigest| {
        let found = paused.cache.manifest(&paused.app, at, Freshness::Cached).await;
        found.map(|found| found.content.digest().clone()).map_err(|error| error.kind())
    };
    assert_eq!(digest_of(&by_digest).await, Ok(one.index().digest().clone()));
    paused.cache.drain().await;
    paused.upstream.set_mood(ManifestMode::Fails(SourceErrorKind::Unavailable));

    let TagOrDigest::Tag(latest) = &paused.latest else { unreachable!() };
    paused.store.put_manifest(&paused.app, two.index(), Some(latest)).await.unwrap();
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(digest_of(&paused.latest).await, Ok(two.index().digest().clone()), "it was moved");
    for digest in [one.index().digest(), two.index().digest()] {
        paused.store.delete_manifest(&paused.app, digest).await.unwrap();
    }
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(digest_of(&paused.latest).await, Err(SourceErrorKind::Unavailable), "it was deleted");
    assert_eq!(digest_of(&by_digest).await, Err(SourceErrorKind::Unavailable), "it was deleted");
}

#[tokio::test(start_paused = true)]
async fn slow_upstream_delays_one_request_and_is_then_backed_off() {
    let ages = [Duration::ZERO, Duration::from_secs(60)];
    let modes = [ManifestMode::Hangs, ManifestMode::HangsOnManifests];
    for (age, manifest_mode) in ages.into_iter().flat_map(|age| modes.clone().map(|mode| (age, mode))) {
        let paused = Paused::new(age);
        paused.upstream.tag("latest", SampleImage::small(1).index());
        assert_eq!(paused.cache_status().await, CacheStatus::Upstream);
        paused.upstream.tag("latest", SampleImage::small(2).index());
        paused.upstream.set_mood(manifest_mode.clone());
        tokio::time::advance(Duration::from_secs(61)).await;
        let began = tokio::time::Instant::now();
        assert_eq!(paused.cache_status().await, CacheStatus::Stale(SourceErrorKind::TimedOut));
        assert!(began.elapsed() < Duration::from_secs(11), "{manifest_mode:?}: {:?}", began.elapsed());
        let (began, resolved) = (tokio::time::Instant::now(), count(&paused.upstream.tags_resolved));
        let again = paused.cache_status().await;
        assert_eq!(again, CacheStatus::Stale(SourceErrorKind::TimedOut), "{manifest_mode:?}");
        let asked = count(&paused.upstream.tags_resolved) - resolved;
        assert_eq!(
            (asked, began.elapsed()),
            (0, Duration::ZERO),
            "{manifest_mode:?}: not asked again at once"
        );
        paused.upstream.set_mood(ManifestMode::Answers);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(paused.cache_status().await, CacheStatus::Upstream, "{manifest_mode:?}: it moved");
    }
}

#[tokio::test(start_paused = true)]
async fn uncached_tag_fails_if_upstream_fails() {
    let paused = Paused::new(Duration::from_secs(60));
    paused.upstream.set_mood(ManifestMode::Fails(SourceErrorKind::RateLimited));
    let refused = paused.cache.manifest(&paused.app, &paused.latest, Freshness::Cached).await;
    assert_eq!(refused.unwrap_err().kind(), SourceErrorKind::RateLimited);
    paused.upstream.set_mood(ManifestMode::Answers);
    paused.upstream.tag("latest", SampleImage::small(1).index());
    assert_eq!(paused.cache_status().await, CacheStatus::Upstream, "the refusal is not remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_concurrent_requests_share_one_upstream_request() {
    let (harness, image) = harness_with_image(ALWAYS).await;
    let path = harness.path("app", "manifests/latest");
    for expected in [(0, 1), (1, 1)] {
        let gate = Gate::new();
        harness
            .upstream
            .script(Rule::on(Target::Manifest).times(1).does(Behavior::DelayHeaders(gate.clone())));
        let known = harness.upstream.log().len();
        let all = join_all((0..100).map(|_| ask(&harness.proxy, Method::GET, &path, &[])));
        let opens = async {
            harness.upstream.wait_for(|log| log.len() > known).await;
            gate.open();
        };
        let (replies, ()) = tokio::join!(all, opens);
        assert!(replies.iter().all(|reply| reply.bytes() == image.index().bytes()));
        assert_eq!(asked(&harness), expected);
        harness.cache.drain().await;
    }
}

#[tokio::test]
async fn blob_of_another_repository_needs_proof_of_access_and_no_second_download() {
    let harness = Harness::start().await;
    let (image, layer, bytes) = image_with_layer(1, 50_000);
    harness.upstream.add_image("owner", "latest", &image);
    let (owner, second) =
        ["owner", "second"].map(|name| harness.path(name, &format!("blobs/{layer}"))).into();
    assert_eq!(harness.get(&owner).await.bytes(), &bytes);
    harness.cache.drain().await;
    let sent = || {
        let log = harness.upstream.log();
        let blobs = log.iter().filter(|entry| entry.method == Method::GET && entry.target == Target::Blob);
        blobs.map(|entry| entry.bytes_sent).sum::<u64>()
    };
    let once = sent();
    for _ in 0..2 {
        assert_eq!(harness.get(&second).await.status, StatusCode::NOT_FOUND, "upstream says no");
        assert_eq!(harness.head(&second).await.status, StatusCode::NOT_FOUND);
    }
    harness.upstream.add_image("second", "latest", &image);
    let reply = harness.get(&second).await;
    assert_eq!((reply.header("cache-status"), reply.bytes()), ("kuik; hit", &bytes));
    assert!(sent() < once + 10_000, "upstream sends a sample, not the whole blob again");
    harness.upstream.stop().await;
    assert_eq!(harness.get(&second).await.bytes(), &bytes, "consent is remembered");
}

#[tokio::test]
async fn claiming_a_blob_does_not_grant_access_to_it() {
    let harness = Harness::start().await;
    let (image, layer, bytes) = image_with_layer(1, 50_000);
    harness.upstream.add_image("owner", "latest", &image);
    assert_eq!(harness.get(&harness.path("owner", &format!("blobs/{layer}"))).await.bytes(), &bytes);
    harness.cache.drain().await;
    // It claims to have everything, and has nothing.
    harness.upstream.add_image("liar", "latest", &image);
    harness.upstream.script(Rule::on(Target::Blob).path("liar").does(Behavior::WrongBytes));
    let reply = harness.get(&harness.path("liar", &format!("blobs/{layer}"))).await;
    assert!(reply.body.is_err() || reply.status == StatusCode::BAD_GATEWAY, "{reply:?}");
    assert_eq!(harness.get(&harness.path("owner", &format!("blobs/{layer}"))).await.bytes(), &bytes);
}

#[tokio::test]
async fn tags_and_referrers_are_passed_through() {
    let (harness, image) = harness_with_image(HOUR).await;
    for tag in ["v1", "v2", "v3"] {
        harness.upstream.add_image("app", tag, &image);
    }
    let list = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap()["tags"].clone();
    let tags = harness.path("app", "tags/list");
    let page = harness.get(&format!("{tags}?n=2&last=latest")).await;
    assert_eq!(list(page.bytes()), serde_json::json!(["v1", "v2"]));
    assert_eq!(page.header("link"), format!("<{tags}?n=2&last=v2>; rel=\"next\""));
    let rest = harness.get(&format!("{tags}?n=2&last=v2")).await;
    assert_eq!((list(rest.bytes()), rest.header("link")), (serde_json::json!(["v3"]), ""));

    let digest = image.index().digest();
    let referrers =
        harness.get(&harness.path("app", &format!("referrers/{digest}?artifactType=a%2Fb"))).await;
    assert_eq!(referrers.header("content-type"), "application/vnd.oci.image.index.v1+json");
    assert_eq!(referrers.header("oci-filters-applied"), "artifactType");
    let log = harness.upstream.log();
    let asked = log.iter().find(|entry| entry.target == Target::Referrers).unwrap();
    assert_eq!(asked.query, "artifactType=a%2Fb");

    harness.get(&harness.path("app", "manifests/v2")).await;
    harness.cache.drain().await;
    harness.upstream.stop().await;
    assert_eq!(list(harness.get(&tags).await.bytes()), serde_json::json!(["v2"]), "the cached ones");
    let referrers = harness.get(&harness.path("app", &format!("referrers/{digest}"))).await;
    assert_eq!(referrers.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn ns_parameter_names_the_registry() {
    let (harness, image) = harness_with_image(HOUR).await;
    let registry = harness.upstream.host().replace(':', "%3A");
    let reply = harness.get(&format!("/v2/app/manifests/latest?ns={registry}")).await;
    assert_eq!(reply.bytes(), image.index().bytes());
    let same = harness.get(&harness.path("app", "manifests/latest")).await;
    assert_eq!(same.header("cache-status"), "kuik; hit", "it is the same image");
    harness.upstream.add_image("app", "v1", &image);
    let page = harness.get(&format!("/v2/app/tags/list?ns={registry}&n=1")).await;
    assert_eq!(
        page.header("link"),
        format!("</v2/app/tags/list?n=1&last=latest&ns={registry}>; rel=\"next\"")
    );
}

#[tokio::test]
async fn only_reads_are_supported() {
    let (harness, _) = harness_with_image(HOUR).await;
    for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        for path in ["/v2/", &harness.path("app", "manifests/latest"), "/v2/app/blobs/uploads/", "/x"] {
            let reply = ask(&harness.proxy, method.clone(), path, &[]).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED")
            );
            assert_eq!(reply.header("allow"), "GET, HEAD");
        }
    }
    let version = harness.get("/v2/").await;
    assert_eq!((version.status, version.bytes().as_ref()), (StatusCode::OK, b"{}".as_slice()));
    assert!(harness.upstream.log().is_empty());
    let unverifiable = format!("blobs/md5:{}", "0".repeat(32));
    let reply = harness.get(&harness.path("app", &unverifiable)).await;
    assert_eq!((reply.status, reply.code().as_str()), (StatusCode::BAD_REQUEST, "UNSUPPORTED"));
}

#[tokio::test]
async fn cached_blob_is_served_in_ranges() {
    let harness = Harness::start().await;
    let (image, layer, bytes) = image_with_layer(1, 300_000);
    harness.upstream.add_image("app", "latest", &image);
    let path = harness.path("app", &format!("blobs/{layer}"));
    harness.get(&path).await;
    harness.cache.drain().await;
    let size = bytes.len();
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=70000-299999", 70_000, 300_000),
        ("bytes=4097-", 4097, size),
        ("bytes=-70001", size - 70_001, size),
    ] {
        let reply = harness.get_with(&path, &[("range", range)]).await;
        assert_eq!((reply.status, reply.header("cache-status")), (StatusCode::PARTIAL_CONTENT, "kuik; hit"));
        assert_eq!(reply.header("content-range"), format!("bytes {from}-{}/{size}", to - 1));
        assert_eq!(reply.bytes(), &bytes[from..to]);
    }
    let outside = harness.get_with(&path, &[("range", "bytes=9999999-")]).await;
    assert_eq!(
        (outside.status, outside.code().as_str()),
        (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID")
    );
    assert_eq!(outside.header("content-range"), format!("bytes */{size}"));
    // A range of the content that the client has parts of, and only of that.
    for (if_range, expected) in [
        (format!("\"{layer}\""), StatusCode::PARTIAL_CONTENT),
        (format!("W/\"{layer}\""), StatusCode::OK),
        ("\"sha256:0000\"".to_owned(), StatusCode::OK),
        ("Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), StatusCode::OK),
    ] {
        let reply = harness.get_with(&path, &[("range", "bytes=5-9"), ("if-range", &if_range)]).await;
        assert_eq!(reply.status, expected, "{if_range}");
        assert_eq!(reply.bytes().len(), if expected == StatusCode::OK { size } else { 5 });
        assert_eq!(reply.header("etag"), format!("\"{layer}\""));
    }
    let several = harness.get_with(&path, &[("range", "bytes=0-1,5-6")]).await;
    assert_eq!((several.status, several.bytes()), (StatusCode::OK, &bytes));
    let repository = harness.upstream.repository("app").unwrap();
    let blob = harness.cache.blob(&repository, &layer, ByteRange::Suffix { length: 1 }).await.unwrap();
    assert_eq!((blob.cache_status, blob.content.size), (CacheStatus::Cache, Some(size as u64)));
}

#[tokio::test]
async fn unreadable_blob_is_fetched_again() {
    let harness = Harness::start().await;
    let (image, layer, bytes) = image_with_layer(1, 50_000);
    harness.upstream.add_image("app", "latest", &image);
    let path = harness.path("app", &format!("blobs/{layer}"));
    assert_eq!(harness.get(&path).await.bytes(), &bytes);
    harness.cache.drain().await;
    // A link that is a directory: opening it is a disk error, not an absence.
    let link = crate::harness::files(harness.data.path())
        .into_iter()
        .find(|file| file.contains("_layers") && file.contains(layer.encoded()))
        .unwrap();
    let link = harness.data.path().join(link);
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir(&link).unwrap();
    let reply = harness.get(&path).await;
    assert_eq!((reply.status, reply.header("cache-status")), (StatusCode::OK, "kuik; fwd=miss"));
    assert_eq!(reply.bytes(), &bytes);
    assert_eq!(harness.upstream.count(Target::Blob), 2);
}

#[tokio::test]
async fn truncated_blob_is_fetched_again_and_not_served() {
    let harness = Harness::start().await;
    let image = SampleImage::builder().seed(7).platform("linux", "amd64").layer(100_000).layer(5_000).build();
    harness.upstream.add_image("app", "latest", &image);
    let manifest = harness.path("app", &format!("manifests/{}", image.manifests()[0].digest()));
    let layers = image.layers();
    let blob = |at: usize| harness.path("app", &format!("blobs/{}", layers[at].digest));
    let (whole, part) = (blob(0), blob(1));
    for path in [&manifest, &whole, &part] {
        assert_eq!(harness.get(path).await.status, StatusCode::OK);
    }
    let harness = harness.restarted(options(Revalidate::Never)).await;
    for layer in &layers[..2] {
        let hex = layer.digest.encoded();
        let data = harness
            .data
            .path()
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data");
        std::fs::File::options().write(true).open(data).unwrap().set_len(100).unwrap();
    }
    // A client that pulls an image requests its manifest first.
    assert_eq!(harness.get(&manifest).await.header("cache-status"), "kuik; hit");
    assert_eq!(harness.head(&whole).await.header("content-length"), layers[0].size.to_string());
    let fetched = harness.get(&whole).await;
    assert_eq!(
        (fetched.header("cache-status"), fetched.bytes().len() as u64),
        ("kuik; fwd=miss", layers[0].size)
    );
    // A range that only the whole blob has.
    let range = harness.get_with(&part, &[("range", "bytes=4000-4999")]).await;
    assert_eq!((range.status, range.bytes().len()), (StatusCode::PARTIAL_CONTENT, 1000));
    harness.cache.drain().await;
    for (path, layer) in [(&whole, &layers[0]), (&part, &layers[1])] {
        let kept = harness.get(path).await;
        assert_eq!(
            (kept.header("cache-status"), kept.bytes().len() as u64),
            ("kuik; hit", layer.size),
            "{path}"
        );
    }
}
