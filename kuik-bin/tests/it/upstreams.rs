//! Mirrors and replicas of a registry, as flags and a file configure them, in a real process.

use std::fs;

use crate::support::{Kuik, Transfer, get, kuik};
use http::{HeaderMap, Method, StatusCode, header::RETRY_AFTER};
use kuik_testkit::{Behavior, Rule, SampleImage, ScriptedRegistry, Target};

async fn registry(name: &str, image: &SampleImage) -> ScriptedRegistry {
    let registry = ScriptedRegistry::start().await.unwrap();
    registry.add_image(name, "v1", image);
    registry
}

#[tokio::test]
async fn a_file_puts_a_mirror_before_a_registry_and_a_replica_after_it() {
    let image = SampleImage::small(93);
    let mirror = registry("hub/app", &image).await;
    let origin = registry("team/app", &image).await;
    let replica = registry("team/app", &image).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kuik.yaml");
    let lines = format!(
        "revalidateAfter: 0s\nupstreams:\n  registry.example/team:\n    source: {}\n    alternatives:\n      - url: {}\n        prefix: hub\n      - url: {}\n        policy: OnFailure\n",
        origin.url(),
        mirror.url(),
        replica.url()
    );
    fs::write(&file, lines).unwrap();
    let data = dir.path().join("data");
    let kuik = Kuik::serve(&data, &["--config", file.to_str().unwrap()]).await;
    let pull = async || {
        let path = "/v2/registry.example/team/app/manifests/v1";
        let answer = Transfer::begin(kuik.address(), "GET", path, "").await;
        answer.is(image.index().bytes()).await.unwrap();
    };
    let asked = || [&mirror, &origin, &replica].map(|registry| registry.count(Target::Manifest));
    pull().await;
    assert_eq!(asked(), [1, 0, 0]);
    mirror.stop().await;
    pull().await;
    assert_eq!(asked(), [1, 1, 0]);
    origin.script(Rule::on_all().does(Behavior::status(StatusCode::BAD_GATEWAY)));
    pull().await;
    assert_eq!(asked(), [1, 2, 1]);
    let metrics = String::from_utf8(get(kuik.address(), "/metrics").await.body).unwrap();
    for (host, outcome) in
        [(mirror.host(), "unreachable"), (origin.host(), "failed"), (replica.host(), "answered")]
    {
        let series =
            format!("kube_image_keeper_upstream_requests_total{{registry=\"{host}\",outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&series), "{series} is missing:\n{metrics}");
    }
}

#[tokio::test]
async fn a_mirror_with_wrong_bytes_costs_a_blob_one_attempt() {
    let image = SampleImage::small(95);
    let (mirror, origin) = (registry("app", &image).await, registry("app", &image).await);
    mirror.script(Rule::on(Target::Blob).does(Behavior::WrongBytes));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kuik.yaml");
    let lines = format!(
        "upstreams:\n  registry.example:\n    source: {}\n    alternatives:\n      - url: {}\n",
        origin.url(),
        mirror.url()
    );
    fs::write(&file, lines).unwrap();
    let kuik = Kuik::serve(&dir.path().join("data"), &["--config", file.to_str().unwrap()]).await;
    let (digest, bytes) = image.blobs().iter().next().unwrap();
    let path = format!("/v2/registry.example/app/blobs/{digest}");
    // A response that has started cannot be replaced: the client sees it break off, and retries.
    let first = Transfer::begin(kuik.address(), "GET", &path, "").await;
    assert!(first.is(bytes).await.is_err());
    let second = Transfer::begin(kuik.address(), "GET", &path, "").await;
    second.is(bytes).await.unwrap();
    assert_eq!((mirror.count(Target::Blob), origin.count(Target::Blob)), (1, 1));
}

#[tokio::test]
async fn a_limit_that_is_hit_leaves_what_the_cache_has() {
    let image = SampleImage::small(94);
    let origin = registry("app", &image).await;
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--upstream", &format!("registry.example={}", origin.url()), "--revalidate-after", "0s"];
    let kuik = Kuik::serve(data.path(), &arguments).await;
    let path = "/v2/registry.example/app/manifests/v1";
    let answer = Transfer::begin(kuik.address(), "GET", path, "").await;
    answer.is(image.index().bytes()).await.unwrap();
    let limited = Behavior::Answer {
        status: StatusCode::TOO_MANY_REQUESTS,
        headers: HeaderMap::from_iter([(RETRY_AFTER, "600".parse().unwrap())]),
        body: Default::default(),
    };
    origin.script(Rule::on_all().does(limited));
    let before = origin.log().len();
    for _ in 0..5 {
        let answer =
            Transfer::begin(kuik.address(), "GET", path, "Cache-Control: no-cache\r\n").await.answer().await;
        assert_eq!(answer.header("cache-status"), "kuik; fwd=stale; fwd-status=429");
        assert_eq!(answer.body, *image.index().bytes());
    }
    let asked = origin.log();
    assert_eq!(asked.len() - before, 1, "no further requests are sent");
    assert_eq!(asked.last().unwrap().method, Method::HEAD, "a tag is checked with a HEAD");
    let absent = Transfer::begin(kuik.address(), "GET", "/v2/registry.example/app/manifests/v2", "")
        .await
        .answer()
        .await;
    assert_eq!(absent.status, 429);
    assert_ne!(absent.header("retry-after"), "");
    kuik.logs("pausing requests").await;
}

#[tokio::test]
async fn mistakes_in_the_file_are_all_reported() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kuik.yaml");
    fs::write(&file, "dataDir: x\nupstreams:\n  docker.io: {source: Never}\n  'Bad Name': {sauce: 1}\n")
        .unwrap();
    let output = kuik(["serve", "--config", file.to_str().unwrap(), "--mirror", "x"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    for place in ["upstreams.docker.io: ", "upstreams.Bad Name: ", "upstreams.Bad Name.sauce: ", "mirror: "] {
        assert!(said.contains(place), "{place} is missing: {said}");
    }
}
