//! Fallback over several upstreams of a repository: order, failures, circuit breaker, retries.
#![cfg(feature = "client")]

use std::time::{Duration, Instant};

use crate::support::{client, limited, read, short, tag};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use kuik_core::{
    client::{
        Alternative, HostLimits, Outcome, Policy, RegistryClient, Source, Timeouts, UpstreamRule, Upstreams,
    },
    content::{
        ByteRange, ContentSource, Digest, Freshness, SourceError, SourceErrorKind, TagOrDigest, TagPage,
    },
    credentials::Anonymous,
    reference::RepositoryName,
};
use kuik_testkit::{Behavior, Gate, Rule, SampleImage, ScriptedRegistry, Target};

/// A mirror, the origin and a fallback, all with the same image.
struct Row {
    mirror: ScriptedRegistry,
    origin: ScriptedRegistry,
    replica: ScriptedRegistry,
    client: RegistryClient,
    image: SampleImage,
    app: RepositoryName,
}

async fn row() -> Row {
    let start = async || ScriptedRegistry::start().await.unwrap();
    let (mirror, origin, replica) = (start().await, start().await, start().await);
    let image = SampleImage::small(7);
    for (registry, name) in [(&mirror, "hub/app"), (&origin, "team/app"), (&replica, "team/app")] {
        registry.add_image(name, "v1", &image);
    }
    let at = |registry: &ScriptedRegistry| Alternative::new(&registry.url()).unwrap();
    let rule = UpstreamRule::new("registry.test/team")
        .unwrap()
        .with_alternative(at(&mirror).with_prefix("hub").unwrap())
        .with_alternative(at(&replica).with_policy(Policy::OnFailure))
        .with_source(Source::At(at(&origin)));
    // Long enough for three upstreams on a busy machine, short enough to wait for one that hangs.
    let seconds = |seconds: f64| Duration::from_secs_f64(seconds);
    let times =
        Timeouts { connect: seconds(1.0), headers: seconds(1.5), answer: seconds(12.0), stall: seconds(2.0) };
    let client = client(Upstreams::default().with_rule(rule).unwrap(), Anonymous, times);
    let app = RepositoryName::new("registry.test", "team/app").unwrap();
    Row { mirror, origin, replica, client, image, app }
}

impl Row {
    async fn get(&self, at: &TagOrDigest) -> Result<Digest, SourceError> {
        let manifest = self.client.manifest(&self.app, at, Freshness::Cached).await?;
        Ok(manifest.content.digest().clone())
    }

    /// The number of requests to each upstream.
    fn asked(&self) -> [usize; 3] {
        [&self.mirror, &self.origin, &self.replica].map(|registry| registry.log().len())
    }
}

fn status(status: u16) -> Rule {
    Rule::on_all().does(Behavior::status(StatusCode::from_u16(status).unwrap()))
}

#[tokio::test]
async fn mirror_with_the_image_is_the_only_upstream_asked() {
    let row = row().await;
    assert_eq!(row.get(&tag("v1")).await.unwrap(), *row.image.index().digest());
    let (digest, bytes) = row.image.blobs().iter().next().unwrap();
    let blob = row.client.blob(&row.app, digest, ByteRange::Full).await.unwrap();
    assert_eq!(read(blob.content).await.unwrap(), *bytes);
    assert_eq!(row.asked(), [2, 0, 0]);
    assert!(row.mirror.log()[0].path.starts_with("/v2/hub/app/manifests/"), "the prefix is rewritten");
}

#[tokio::test]
async fn failure_of_each_role_falls_through_or_is_final() {
    for (mirror, origin, expected, asked) in [
        // Any failure of a mirror falls through.
        (404, 200, Ok(()), [1, 1, 0]),
        (401, 200, Ok(()), [1, 1, 0]),
        (403, 200, Ok(()), [1, 1, 0]),
        (429, 200, Ok(()), [1, 1, 0]),
        (500, 200, Ok(()), [1, 1, 0]),
        // A 404 or denial of the origin is final.
        (404, 404, Err(SourceErrorKind::NotFound), [1, 1, 0]),
        (404, 401, Err(SourceErrorKind::Unauthorized), [1, 1, 0]),
        (404, 403, Err(SourceErrorKind::Denied), [1, 1, 0]),
        (503, 404, Err(SourceErrorKind::NotFound), [1, 1, 0]),
        // Other failures of the origin fall through.
        (404, 429, Ok(()), [1, 1, 1]),
        (404, 500, Ok(()), [1, 1, 1]),
        (404, 503, Ok(()), [1, 1, 1]),
    ] {
        let row = row().await;
        for (registry, answer) in [(&row.mirror, mirror), (&row.origin, origin)] {
            if answer != 200 {
                registry.script(status(answer));
            }
        }
        let got = row.get(&tag("v1")).await.map(drop).map_err(|error| error.kind());
        assert_eq!((got, row.asked()), (expected, asked), "mirror {mirror}, origin {origin}");
    }
}

#[tokio::test]
async fn corrupt_upstream_is_skipped_and_tried_last_for_a_while() {
    let row = row().await;
    row.mirror.script(Rule::on(Target::Manifest).does(Behavior::WrongBytes));
    let digest = TagOrDigest::Digest(row.image.index().digest().clone());
    for _ in 0..2 {
        assert_eq!(row.get(&digest).await.unwrap(), *row.image.index().digest());
    }
    assert_eq!(row.asked(), [1, 2, 0]);
    // The store that keeps a blob detects corruption and reports it.
    row.mirror.script(Rule::on(Target::Blob).does(Behavior::WrongBytes));
    let (digest, bytes) = row.image.blobs().iter().next().unwrap();
    let get = async || {
        let blob = row.client.blob(&row.app, digest, ByteRange::Full).await.unwrap();
        read(blob.content).await.unwrap()
    };
    assert_ne!(get().await, *bytes);
    row.client.report_corrupt(&row.app, digest);
    assert_eq!(get().await, *bytes);
}

#[tokio::test]
async fn aborted_blob_continues_at_the_next_upstream() {
    let row = row().await;
    let (digest, bytes) = row.image.blobs().iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    row.mirror.script(Rule::on(Target::Blob).does(Behavior::Truncate { after: 10 }));
    let blob = row.client.blob(&row.app, digest, ByteRange::Full).await.unwrap();
    assert!(read(blob.content).await.is_err());
    let rest = ByteRange::From { first: 10, last: None };
    let blob = row.client.blob(&row.app, digest, rest).await.unwrap();
    assert_eq!(read(blob.content).await.unwrap(), bytes[10..]);
    assert_eq!(row.asked(), [1, 1, 0]);
}

#[tokio::test]
async fn unresponsive_upstream_leaves_time_for_the_next() {
    let row = row().await;
    row.mirror.script(Rule::on_all().does(Behavior::DelayHeaders(Gate::new())));
    row.origin.script(Rule::on_all().does(Behavior::DelayHeaders(Gate::new())));
    let began = Instant::now();
    assert_eq!(row.get(&tag("v1")).await.unwrap(), *row.image.index().digest());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(row.asked(), [1, 1, 1]);
}

#[tokio::test]
async fn lists_come_from_the_origin_first() {
    let row = row().await;
    row.origin.add_image("team/app", "v2", &SampleImage::small(8));
    let tags = row.client.tags(&row.app, &TagPage::default()).await.unwrap();
    assert_eq!((tags.tags, row.asked()), (vec!["v1".to_owned(), "v2".to_owned()], [0, 1, 0]));
    row.origin.stop().await;
    let tags = row.client.tags(&row.app, &TagPage::default()).await.unwrap();
    assert_eq!(tags.tags, ["v1"], "the list of a mirror is the fallback");
}

/// A single registry and its client.
async fn alone() -> (ScriptedRegistry, RegistryClient, RepositoryName) {
    let registry = ScriptedRegistry::start().await.unwrap();
    registry.add_image("app", "v1", &SampleImage::small(9));
    let app = registry.repository("app").unwrap();
    let client = client(crate::support::named(&registry), Anonymous, Timeouts::default());
    (registry, client, app)
}

fn answering(status: StatusCode, headers: &[(&'static str, &'static str)]) -> Behavior {
    let headers: HeaderMap = headers
        .iter()
        .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    Behavior::Answer { status, headers, body: bytes::Bytes::new() }
}

#[tokio::test]
async fn rate_limit_pauses_pulls_but_not_heads() {
    let (registry, client, app) = alone().await;
    let limited = answering(
        StatusCode::TOO_MANY_REQUESTS,
        &[("retry-after", "600"), ("ratelimit-limit", "100;w=21600")],
    );
    registry.script(Rule::on(Target::Manifest).method(Method::GET).does(limited));
    for _ in 0..3 {
        let error = client.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::RateLimited);
        let wait = error.retry_after().unwrap();
        assert!(wait > Duration::from_secs(500) && wait <= Duration::from_secs(600), "{wait:?}");
    }
    assert_eq!(registry.count(Target::Manifest), 1, "only one request before the pause");
    client.resolve(&app, &tag("v1"), Freshness::Revalidate).await.unwrap();
    assert_eq!(registry.log()[1].method, Method::HEAD);
    let report = client.hosts().remove(0);
    assert_eq!(report.name.as_deref(), Some(registry.host().as_str()));
    assert!(report.paused_for.is_some());
    let count = |outcome| report.outcomes.iter().find(|(one, _)| *one == outcome).unwrap().1;
    assert_eq!(
        (count(Outcome::TooManyRequests), count(Outcome::RateLimited), count(Outcome::Answered)),
        (1, 2, 1)
    );
}

#[tokio::test]
async fn remaining_quota_is_reported() {
    let (registry, client, app) = alone().await;
    let left = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")];
    let left =
        left.map(|(name, value)| (HeaderName::from_static(name), Some(HeaderValue::from_static(value))));
    registry.script(Rule::on(Target::Manifest).does(Behavior::Headers(left.into())));
    client.resolve(&app, &tag("v1"), Freshness::Revalidate).await.unwrap();
    let quota = client.hosts()[0].quota.unwrap();
    assert_eq!((quota.remaining, quota.limit), (76, Some(100)));
    assert_eq!(quota.window, Some(Duration::from_secs(21600)));
}

#[tokio::test]
async fn transient_failures_are_retried_within_the_budget() {
    let (registry, client, app) = alone().await;
    registry.script(status(502).times(1));
    client.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap();
    assert_eq!(registry.count(Target::Manifest), 2);
    registry.script(status(502));
    for _ in 0..20 {
        client.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap_err();
    }
    // Twenty requests, plus the retries that ten tokens allow.
    let asked = registry.count(Target::Manifest);
    assert!(asked > 22 && asked <= 2 + 20 + 10, "{asked}");
    assert_eq!(client.hosts()[0].retries, (asked - 2 - 20 + 1) as u64);
    registry.clear_script();
    registry.script(answering_once(StatusCode::SERVICE_UNAVAILABLE));
    let before = registry.count(Target::Manifest);
    let error = client.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(100)), "Retry-After is passed on");
    client.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap_err();
    assert_eq!(registry.count(Target::Manifest), before + 1);
}

fn answering_once(status: StatusCode) -> Rule {
    Rule::on_all().times(1).does(answering(status, &[("retry-after", "100")]))
}

#[tokio::test]
async fn breaker_opens_for_an_unreachable_registry() {
    let (registry, _, app) = alone().await;
    let mut limits = HostLimits::default();
    limits.retries.attempts = 0;
    let client = limited(crate::support::named(&registry), Anonymous, short(), limits);
    registry.stop().await;
    let mut left_alone = 0;
    for _ in 0..8 {
        let error = client.manifest(&app, &tag("v1"), Freshness::Cached).await.unwrap_err();
        assert!(error.is_unreachable(), "{error}");
        left_alone += usize::from(error.retry_after().is_some());
    }
    assert!(left_alone >= 1, "no request after five failures");
    let others = client.hosts();
    assert!(others[0].circuit_open, "{others:?}");
    registry.resume().await.unwrap();
    // The breaker admits a probe within a few seconds.
    let back = async {
        while client.manifest(&app, &tag("v1"), Freshness::Cached).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    assert!(!client.hosts()[0].circuit_open);
}
