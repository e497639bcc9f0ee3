//! The cache in front of an upstream: what is asked upstream, how often, and what is served when it cannot answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    reason = "a test may fail"
)]

mod rig;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use http::{Method, StatusCode};
use kuik_core::{
    content::{
        ByteRange, ContentSource, ContentStore as _, Freshness, ManagedStore as _, Origin, SourceErrorKind,
        TagOrDigest,
    },
    reference::RepositoryName,
    registry::Timeouts,
    testkit::{Behaviour, Gate, Rule, SampleImage, Target},
};
use kuik_proxy::{
    pull_through::{PullThrough, Revalidate},
    store::FilesystemStore,
};
use rig::{
    Rig, ask,
    hand_fed::{HandFed, Mood, count},
    image_with_layer, open, options,
};

const ALWAYS: Revalidate = Revalidate::After(Duration::ZERO);
const HOUR: Revalidate = Revalidate::After(Duration::from_secs(3600));
const NO_CACHE: (&str, &str) = ("cache-control", "max-age=0, No-Cache");

async fn rig_with_image(revalidate: Revalidate) -> (Rig, SampleImage) {
    let rig = Rig::with(Timeouts::default(), options(revalidate)).await;
    let image = SampleImage::small(1);
    rig.upstream.add_image("app", "latest", &image);
    (rig, image)
}

/// How many requests about manifests upstream got, by method.
fn asked(rig: &Rig) -> (usize, usize) {
    let log = rig.upstream.log();
    let of = |method: Method| {
        log.iter().filter(|entry| entry.target == Target::Manifest && entry.method == method).count()
    };
    (of(Method::HEAD), of(Method::GET))
}

#[tokio::test]
async fn an_image_is_fetched_once_and_outlives_its_registry() {
    let (rig, image) = rig_with_image(HOUR).await;
    let mut paths = vec![rig.path("app", "manifests/latest")];
    paths.extend(image.manifests().iter().map(|it| rig.path("app", &format!("manifests/{}", it.digest()))));
    paths.extend(image.blobs().keys().map(|digest| rig.path("app", &format!("blobs/{digest}"))));
    let mut first = Vec::new();
    for path in &paths {
        let reply = rig.get(path).await;
        assert_eq!(
            (reply.status, reply.header("cache-status")),
            (StatusCode::OK, "kuik; fwd=miss"),
            "{path}"
        );
        first.push(reply);
    }
    rig.cache.drain().await;
    rig.upstream.stop().await;
    let asked = rig.upstream.log().len();
    let rig = rig.restarted(options(Revalidate::Never)).await;
    for (path, first) in paths.iter().zip(&first) {
        let again = rig.get(path).await;
        assert_eq!((again.status, again.header("cache-status")), (StatusCode::OK, "kuik; hit"), "{path}");
        assert_eq!(again.bytes(), first.bytes());
        for header in ["content-type", "content-length", "docker-content-digest", "etag"] {
            assert_eq!(again.header(header), first.header(header), "{path}: {header}");
            assert_ne!(again.header(header), "", "{path}: {header}");
        }
        let head = rig.head(path).await;
        assert_eq!((head.status, head.bytes().len()), (StatusCode::OK, 0));
        for header in ["content-type", "content-length", "docker-content-digest", "etag"] {
            assert_eq!(head.header(header), first.header(header), "{path}: {header}");
        }
    }
    assert_eq!(rig.upstream.log().len(), asked, "upstream is not asked again");
    let host = rig.upstream.host();
    let series = format!(
        r#"proxy_http_requests_total{{registry="{host}",statusCode="200",cacheHit="true"}} {}"#,
        2 * paths.len()
    );
    assert!(rig.exposed().contains(&series), "{}", rig.exposed());
}

#[tokio::test]
async fn the_digest_of_a_tag_that_was_just_fetched_is_known() {
    let (rig, image) = rig_with_image(HOUR).await;
    let head = rig.head(&rig.path("app", "manifests/latest")).await;
    let digest = head.header("docker-content-digest");
    assert_eq!(digest, image.index().digest().as_str());
    assert_eq!(
        rig.get(&rig.path("app", &format!("manifests/{digest}"))).await.bytes(),
        image.index().bytes()
    );
    assert_eq!(asked(&rig), (0, 1));
    let other = rig.get(&rig.path("other", &format!("manifests/{digest}"))).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND, "of this repository alone");
}

#[tokio::test]
async fn a_client_that_has_it_is_told_so() {
    let (rig, image) = rig_with_image(HOUR).await;
    let (blob, _) = image.blobs().iter().next().unwrap();
    let manifest = (rig.path("app", "manifests/latest"), image.index().digest());
    let blob = (rig.path("app", &format!("blobs/{blob}")), blob);
    for (path, digest) in [manifest, blob] {
        for _ in 0..2 {
            for held in [format!("\"{digest}\""), format!("\"x\", W/\"{digest}\""), "*".to_owned()] {
                let reply = rig.get_with(&path, &[("if-none-match", &held)]).await;
                assert_eq!(reply.status, StatusCode::NOT_MODIFIED, "{path} {held}");
                assert_eq!((reply.bytes().len(), reply.header("content-length")), (0, ""));
                assert_eq!(reply.header("etag"), format!("\"{digest}\""));
            }
            let reply = rig.get_with(&path, &[("if-none-match", "\"sha256:other\"")]).await;
            assert_eq!(reply.status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_tag_is_asked_about_when_its_time_has_come() {
    for (revalidate, headers, heads) in [
        (Revalidate::Never, None, 0),
        (HOUR, None, 0),
        (ALWAYS, None, 3),
        (Revalidate::Never, Some(NO_CACHE), 3),
        (HOUR, Some(NO_CACHE), 3),
    ] {
        let (rig, image) = rig_with_image(revalidate).await;
        let path = rig.path("app", "manifests/latest");
        rig.get(&path).await;
        for _ in 0..3 {
            let reply = rig.get_with(&path, headers.as_slice()).await;
            assert_eq!((reply.header("cache-status"), reply.bytes()), ("kuik; hit", image.index().bytes()));
        }
        assert_eq!(asked(&rig), (heads, 1), "{revalidate:?} {headers:?}");
        // A digest says what it is for ever.
        let by_digest = rig.path("app", &format!("manifests/{}", image.index().digest()));
        rig.get_with(&by_digest, &[NO_CACHE]).await;
        assert_eq!(asked(&rig), (heads, 1));
    }
}

#[tokio::test]
async fn a_tag_that_moved_is_fetched() {
    let (rig, old) = rig_with_image(Revalidate::Never).await;
    let path = rig.path("app", "manifests/latest");
    rig.get(&path).await;
    let new = SampleImage::small(2);
    rig.upstream.add_image("app", "latest", &new);
    assert_eq!(rig.get(&path).await.bytes(), old.index().bytes(), "nobody asked");
    let reply = rig.get_with(&path, &[NO_CACHE]).await;
    assert_eq!((reply.header("cache-status"), reply.bytes()), ("kuik; fwd=miss", new.index().bytes()));
    assert_eq!(rig.get(&path).await.bytes(), new.index().bytes());
    let rig = rig.restarted(options(Revalidate::Never)).await;
    rig.upstream.stop().await;
    assert_eq!(rig.get(&path).await.bytes(), new.index().bytes());
    let by_digest = rig.path("app", &format!("manifests/{}", old.index().digest()));
    assert_eq!(rig.get(&by_digest).await.bytes(), old.index().bytes(), "the old one is there by its digest");
}

#[tokio::test]
async fn a_question_that_hangs_does_not_move_a_tag_back() {
    let (rig, _) = rig_with_image(ALWAYS).await;
    let path = rig.path("app", "manifests/latest");
    rig.get(&path).await;
    let new = SampleImage::small(2);
    rig.upstream.add_image("app", "latest", &new);
    let gate = Gate::new();
    let hangs = Rule::on(Target::Manifest).method(Method::HEAD).times(1);
    rig.upstream.script(hangs.does(Behaviour::DelayHeaders(gate.clone())));
    let asked = rig.upstream.log().len();
    let (late, ()) = tokio::join!(rig.get(&path), async {
        rig.upstream.wait_for(|log| log.len() > asked).await;
        assert_eq!(rig.get_with(&path, &[NO_CACHE]).await.bytes(), new.index().bytes());
    });
    assert_eq!(late.bytes(), new.index().bytes(), "somebody has seen it move meanwhile");
    rig.upstream.stop().await;
    assert_eq!(rig.get(&path).await.bytes(), new.index().bytes());
}

#[tokio::test]
async fn what_upstream_cannot_confirm_is_served_stale() {
    for status in [401, 403, 404, 429, 500] {
        let (rig, image) = rig_with_image(ALWAYS).await;
        let path = rig.path("app", "manifests/latest");
        rig.get(&path).await;
        let status = StatusCode::from_u16(status).unwrap();
        rig.upstream.script(Rule::on_all().does(Behaviour::status(status)));
        let reply = rig.get(&path).await;
        let stale = "kuik; hit; detail=stale";
        let told = if status.is_server_error() {
            stale.to_owned()
        } else {
            format!("{stale}; fwd-status={}", status.as_u16())
        };
        assert_eq!((reply.status, reply.header("cache-status")), (StatusCode::OK, &*told));
        assert_eq!(reply.bytes(), image.index().bytes());
        let series = format!(r#"proxy_stale_served_total{{registry="{}"}} 1"#, rig.upstream.host());
        assert!(rig.exposed().contains(&series), "{}", rig.exposed());
        rig.upstream.clear_script();
        assert_eq!(rig.get(&path).await.header("cache-status"), "kuik; hit", "{status}");
    }
    let (rig, image) = rig_with_image(ALWAYS).await;
    let path = rig.path("app", "manifests/latest");
    rig.get(&path).await;
    let rig = rig.restarted(options(ALWAYS)).await;
    rig.upstream.stop().await;
    let reply = rig.get(&path).await;
    assert_eq!(reply.header("cache-status"), "kuik; hit; detail=stale");
    assert_eq!(reply.bytes(), image.index().bytes());
}

/// A cache over an upstream in the test's hands, for which time is paused.
struct Paused {
    upstream: Arc<HandFed>,
    cache: PullThrough,
    latest: TagOrDigest,
    app: RepositoryName,
    store: Arc<FilesystemStore>,
    _data: tempfile::TempDir,
}

impl Paused {
    fn new(age: Duration) -> Self {
        let (upstream, data) = (HandFed::new(), tempfile::tempdir().unwrap());
        let store = open(data.path());
        let cache = PullThrough::new(store.clone(), upstream.clone(), options(Revalidate::After(age)));
        let latest = TagOrDigest::Tag("latest".parse().unwrap());
        let app = RepositoryName::new("registry.example", "app").unwrap();
        Self { upstream, cache, latest, app, store, _data: data }
    }

    async fn origin(&self) -> Origin {
        self.cache.manifest(&self.app, &self.latest, Freshness::Cached).await.unwrap().origin
    }
}

#[tokio::test(start_paused = true)]
async fn time_makes_a_tag_due() {
    let paused = Paused::new(Duration::from_secs(60));
    paused.upstream.tag("latest", SampleImage::small(1).index());
    assert_eq!(paused.origin().await, Origin::Upstream);
    for (seconds, resolved) in [(59, 0), (2, 1), (58, 1), (3, 2)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        assert_eq!(paused.origin().await, Origin::Cache);
        assert_eq!(count(&paused.upstream.tags_resolved), resolved);
    }
    assert_eq!(count(&paused.upstream.manifests_fetched), 1);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_changes_in_the_store_is_seen_though_upstream_is_away() {
    let paused = Paused::new(Duration::from_secs(60));
    let (one, two) = (SampleImage::small(1), SampleImage::small(2));
    paused.upstream.tag("latest", one.index());
    assert_eq!(paused.origin().await, Origin::Upstream);
    let by_digest = TagOrDigest::Digest(one.index().digest().clone());
    let digest_of = async |at: &TagOrDigest| {
        let found = paused.cache.manifest(&paused.app, at, Freshness::Cached).await;
        found.map(|found| found.content.digest().clone()).map_err(|error| error.kind())
    };
    assert_eq!(digest_of(&by_digest).await, Ok(one.index().digest().clone()));
    paused.cache.drain().await;
    paused.upstream.set_mood(Mood::Fails(SourceErrorKind::Unavailable));

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
async fn an_upstream_that_is_too_slow_costs_seconds_and_is_left_alone_for_a_while() {
    for mood in [Mood::Hangs, Mood::HangsOnManifests] {
        let paused = Paused::new(Duration::from_secs(60));
        paused.upstream.tag("latest", SampleImage::small(1).index());
        assert_eq!(paused.origin().await, Origin::Upstream);
        paused.upstream.tag("latest", SampleImage::small(2).index());
        paused.upstream.set_mood(mood.clone());
        tokio::time::advance(Duration::from_secs(61)).await;
        let began = tokio::time::Instant::now();
        assert_eq!(paused.origin().await, Origin::Stale(SourceErrorKind::TimedOut));
        assert!(began.elapsed() < Duration::from_secs(11), "{mood:?}: {:?}", began.elapsed());
        assert_eq!(paused.origin().await, Origin::Cache, "{mood:?}: it is not asked again at once");
        paused.upstream.set_mood(Mood::Answers);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(paused.origin().await, Origin::Upstream, "{mood:?}: it moved");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_cached_cannot_be_stale() {
    let paused = Paused::new(Duration::from_secs(60));
    paused.upstream.set_mood(Mood::Fails(SourceErrorKind::RateLimited));
    let refused = paused.cache.manifest(&paused.app, &paused.latest, Freshness::Cached).await;
    assert_eq!(refused.unwrap_err().kind(), SourceErrorKind::RateLimited);
    paused.upstream.set_mood(Mood::Answers);
    paused.upstream.tag("latest", SampleImage::small(1).index());
    assert_eq!(paused.origin().await, Origin::Upstream, "the refusal is not remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_make_one_request() {
    let (rig, image) = rig_with_image(ALWAYS).await;
    let path = rig.path("app", "manifests/latest");
    for expected in [(0, 1), (1, 1)] {
        let gate = Gate::new();
        rig.upstream.script(Rule::on(Target::Manifest).times(1).does(Behaviour::DelayHeaders(gate.clone())));
        let known = rig.upstream.log().len();
        let all = join_all((0..100).map(|_| ask(&rig.proxy, Method::GET, &path, &[])));
        let opens = async {
            rig.upstream.wait_for(|log| log.len() > known).await;
            gate.open();
        };
        let (replies, ()) = tokio::join!(all, opens);
        assert!(replies.iter().all(|reply| reply.bytes() == image.index().bytes()));
        assert_eq!(asked(&rig), expected);
        rig.cache.drain().await;
    }
}

#[tokio::test]
async fn a_blob_of_another_repository_needs_consent_and_no_second_download() {
    let rig = Rig::start().await;
    let (image, layer, bytes) = image_with_layer(1, 50_000);
    rig.upstream.add_image("owner", "latest", &image);
    let (owner, second) = ["owner", "second"].map(|name| rig.path(name, &format!("blobs/{layer}"))).into();
    assert_eq!(rig.get(&owner).await.bytes(), &bytes);
    rig.cache.drain().await;
    let sent = || {
        let log = rig.upstream.log();
        let blobs = log.iter().filter(|entry| entry.method == Method::GET && entry.target == Target::Blob);
        blobs.map(|entry| entry.bytes_sent).sum::<u64>()
    };
    let once = sent();
    for _ in 0..2 {
        assert_eq!(rig.get(&second).await.status, StatusCode::NOT_FOUND, "upstream says no");
        assert_eq!(rig.head(&second).await.status, StatusCode::NOT_FOUND);
    }
    rig.upstream.add_image("second", "latest", &image);
    let reply = rig.get(&second).await;
    assert_eq!((reply.header("cache-status"), reply.bytes()), ("kuik; hit", &bytes));
    assert!(sent() < once + 10_000, "upstream shows some bytes, and does not send all again");
    rig.upstream.stop().await;
    assert_eq!(rig.get(&second).await.bytes(), &bytes, "consent is remembered");
}

#[tokio::test]
async fn who_only_claims_to_have_a_blob_does_not_open_it() {
    let rig = Rig::start().await;
    let (image, layer, bytes) = image_with_layer(1, 50_000);
    rig.upstream.add_image("owner", "latest", &image);
    assert_eq!(rig.get(&rig.path("owner", &format!("blobs/{layer}"))).await.bytes(), &bytes);
    rig.cache.drain().await;
    // It says yes to everything, and has nothing.
    rig.upstream.add_image("liar", "latest", &image);
    rig.upstream.script(Rule::on(Target::Blob).path("liar").does(Behaviour::WrongBytes));
    let reply = rig.get(&rig.path("liar", &format!("blobs/{layer}"))).await;
    assert!(reply.body.is_err() || reply.status == StatusCode::BAD_GATEWAY, "{reply:?}");
    assert_eq!(rig.get(&rig.path("owner", &format!("blobs/{layer}"))).await.bytes(), &bytes);
}

#[tokio::test]
async fn tags_and_referrers_are_passed_through() {
    let (rig, image) = rig_with_image(HOUR).await;
    for tag in ["v1", "v2", "v3"] {
        rig.upstream.add_image("app", tag, &image);
    }
    let list = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap()["tags"].clone();
    let tags = rig.path("app", "tags/list");
    let page = rig.get(&format!("{tags}?n=2&last=latest")).await;
    assert_eq!(list(page.bytes()), serde_json::json!(["v1", "v2"]));
    assert_eq!(page.header("link"), format!("<{tags}?n=2&last=v2>; rel=\"next\""));
    let rest = rig.get(&format!("{tags}?n=2&last=v2")).await;
    assert_eq!((list(rest.bytes()), rest.header("link")), (serde_json::json!(["v3"]), ""));

    let digest = image.index().digest();
    let referrers = rig.get(&rig.path("app", &format!("referrers/{digest}?artifactType=a%2Fb"))).await;
    assert_eq!(referrers.header("content-type"), "application/vnd.oci.image.index.v1+json");
    assert_eq!(referrers.header("oci-filters-applied"), "artifactType");
    let log = rig.upstream.log();
    let asked = log.iter().find(|entry| entry.target == Target::Referrers).unwrap();
    assert_eq!(asked.query, "artifactType=a%2Fb");

    rig.get(&rig.path("app", "manifests/v2")).await;
    rig.cache.drain().await;
    rig.upstream.stop().await;
    assert_eq!(list(rig.get(&tags).await.bytes()), serde_json::json!(["v2"]), "the cached ones");
    let referrers = rig.get(&rig.path("app", &format!("referrers/{digest}"))).await;
    assert_eq!(referrers.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn containerd_names_the_registry_in_a_parameter() {
    let (rig, image) = rig_with_image(HOUR).await;
    let registry = rig.upstream.host().replace(':', "%3A");
    let reply = rig.get(&format!("/v2/app/manifests/latest?ns={registry}")).await;
    assert_eq!(reply.bytes(), image.index().bytes());
    let same = rig.get(&rig.path("app", "manifests/latest")).await;
    assert_eq!(same.header("cache-status"), "kuik; hit", "it is the same image");
    rig.upstream.add_image("app", "v1", &image);
    let page = rig.get(&format!("/v2/app/tags/list?ns={registry}&n=1")).await;
    assert_eq!(
        page.header("link"),
        format!("</v2/app/tags/list?n=1&last=latest&ns={registry}>; rel=\"next\"")
    );
}

#[tokio::test]
async fn only_reading_is_answered() {
    let (rig, _) = rig_with_image(HOUR).await;
    for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        for path in ["/v2/", &rig.path("app", "manifests/latest"), "/v2/app/blobs/uploads/", "/x"] {
            let reply = ask(&rig.proxy, method.clone(), path, &[]).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED")
            );
            assert_eq!(reply.header("allow"), "GET, HEAD");
        }
    }
    let version = rig.get("/v2/").await;
    assert_eq!((version.status, version.bytes().as_ref()), (StatusCode::OK, b"{}".as_slice()));
    assert!(rig.upstream.log().is_empty());
    let unverifiable = format!("blobs/md5:{}", "0".repeat(32));
    let reply = rig.get(&rig.path("app", &unverifiable)).await;
    assert_eq!((reply.status, reply.code().as_str()), (StatusCode::BAD_REQUEST, "UNSUPPORTED"));
}

#[tokio::test]
async fn a_cached_blob_is_read_in_ranges() {
    let rig = Rig::start().await;
    let (image, layer, bytes) = image_with_layer(1, 300_000);
    rig.upstream.add_image("app", "latest", &image);
    let path = rig.path("app", &format!("blobs/{layer}"));
    rig.get(&path).await;
    rig.cache.drain().await;
    let size = bytes.len();
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=70000-299999", 70_000, 300_000),
        ("bytes=4097-", 4097, size),
        ("bytes=-70001", size - 70_001, size),
    ] {
        let reply = rig.get_with(&path, &[("range", range)]).await;
        assert_eq!((reply.status, reply.header("cache-status")), (StatusCode::PARTIAL_CONTENT, "kuik; hit"));
        assert_eq!(reply.header("content-range"), format!("bytes {from}-{}/{size}", to - 1));
        assert_eq!(reply.bytes(), &bytes[from..to]);
    }
    let outside = rig.get_with(&path, &[("range", "bytes=9999999-")]).await;
    assert_eq!(
        (outside.status, outside.code().as_str()),
        (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID")
    );
    assert_eq!(outside.header("content-range"), format!("bytes */{size}"));
    // A range of what the client has parts of, and only of that.
    for (if_range, expected) in [
        (format!("\"{layer}\""), StatusCode::PARTIAL_CONTENT),
        (format!("W/\"{layer}\""), StatusCode::OK),
        ("\"sha256:0000\"".to_owned(), StatusCode::OK),
        ("Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), StatusCode::OK),
    ] {
        let reply = rig.get_with(&path, &[("range", "bytes=5-9"), ("if-range", &if_range)]).await;
        assert_eq!(reply.status, expected, "{if_range}");
        assert_eq!(reply.bytes().len(), if expected == StatusCode::OK { size } else { 5 });
        assert_eq!(reply.header("etag"), format!("\"{layer}\""));
    }
    let several = rig.get_with(&path, &[("range", "bytes=0-1,5-6")]).await;
    assert_eq!((several.status, several.bytes()), (StatusCode::OK, &bytes));
    let repository = rig.upstream.repository("app").unwrap();
    let blob = rig.cache.blob(&repository, &layer, ByteRange::Suffix { length: 1 }).await.unwrap();
    assert_eq!((blob.origin, blob.content.size), (Origin::Cache, Some(size as u64)));
}

#[tokio::test]
async fn a_blob_that_the_store_cannot_read_is_fetched_again() {
    let rig = Rig::start().await;
    let (image, layer, bytes) = image_with_layer(1, 50_000);
    rig.upstream.add_image("app", "latest", &image);
    let path = rig.path("app", &format!("blobs/{layer}"));
    assert_eq!(rig.get(&path).await.bytes(), &bytes);
    rig.cache.drain().await;
    // A link that is a directory: whoever opens it gets an error of the disk, not an absence.
    let link = rig::files(rig.data.path())
        .into_iter()
        .find(|file| file.contains("_layers") && file.contains(layer.encoded()))
        .unwrap();
    let link = rig.data.path().join(link);
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir(&link).unwrap();
    let reply = rig.get(&path).await;
    assert_eq!((reply.status, reply.header("cache-status")), (StatusCode::OK, "kuik; fwd=miss"));
    assert_eq!(reply.bytes(), &bytes);
    assert_eq!(rig.upstream.count(Target::Blob), 2);
}

#[tokio::test]
async fn a_blob_that_was_cut_off_is_fetched_again_and_not_served() {
    let rig = Rig::start().await;
    let image = SampleImage::builder().seed(7).platform("linux", "amd64").layer(100_000).layer(5_000).build();
    rig.upstream.add_image("app", "latest", &image);
    let manifest = rig.path("app", &format!("manifests/{}", image.manifests()[0].digest()));
    let layers = image.layers();
    let blob = |at: usize| rig.path("app", &format!("blobs/{}", layers[at].digest));
    let (whole, part) = (blob(0), blob(1));
    for path in [&manifest, &whole, &part] {
        assert_eq!(rig.get(path).await.status, StatusCode::OK);
    }
    let rig = rig.restarted(options(Revalidate::Never)).await;
    for layer in &layers[..2] {
        let hex = layer.digest.encoded();
        let data =
            rig.data.path().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
        std::fs::File::options().write(true).open(data).unwrap().set_len(100).unwrap();
    }
    // Whoever pulls an image asks for its manifest first.
    assert_eq!(rig.get(&manifest).await.header("cache-status"), "kuik; hit");
    assert_eq!(rig.head(&whole).await.header("content-length"), layers[0].size.to_string());
    let fetched = rig.get(&whole).await;
    assert_eq!(
        (fetched.header("cache-status"), fetched.bytes().len() as u64),
        ("kuik; fwd=miss", layers[0].size)
    );
    // A range that only the whole blob has.
    let range = rig.get_with(&part, &[("range", "bytes=4000-4999")]).await;
    assert_eq!((range.status, range.bytes().len()), (StatusCode::PARTIAL_CONTENT, 1000));
    rig.cache.drain().await;
    for (path, layer) in [(&whole, &layers[0]), (&part, &layers[1])] {
        let kept = rig.get(path).await;
        assert_eq!(
            (kept.header("cache-status"), kept.bytes().len() as u64),
            ("kuik; hit", layer.size),
            "{path}"
        );
    }
}
