//! Fault injection for the registry client: slow, broken and malicious registries give an error of the right kind, in
//! bounded time.
#![cfg(feature = "client")]

use std::time::{Duration, Instant};

use crate::support::{anonymous, client, limited, named, read, short, tag};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use kuik_core::{
    client::{HostLimits, RegistryClient, Timeouts, Upstreams},
    content::{
        ByteRange, ContentSource, Digest, Freshness, MAX_MANIFEST_BYTES, SourceError, SourceErrorKind,
        TagOrDigest,
    },
    credentials::Anonymous,
    reference::RepositoryName,
};
use kuik_testkit::{Behavior, Gate, Rule, SampleImage, ScriptedRegistry, Target};

async fn with_image() -> (ScriptedRegistry, SampleImage) {
    let registry = ScriptedRegistry::start().await.unwrap();
    let image = SampleImage::small(1);
    registry.add_image("app", "latest", &image);
    (registry, image)
}

fn hurried(registry: &ScriptedRegistry) -> RegistryClient {
    client(named(registry), Anonymous, short())
}

async fn get(client: &RegistryClient, registry: &ScriptedRegistry) -> Result<(), SourceError> {
    let app = registry.repository("app").unwrap();
    client.manifest(&app, &tag("latest"), Freshness::Cached).await.map(drop)
}

#[tokio::test]
async fn missing_registry_is_unavailable() {
    let (registry, _) = with_image().await;
    let client = hurried(&registry);
    registry.stop().await;
    assert_eq!(get(&client, &registry).await.unwrap_err().kind(), SourceErrorKind::Unavailable);
    registry.resume().await.unwrap();
    get(&client, &registry).await.unwrap();
}

#[tokio::test]
async fn connection_closed_before_response_is_unavailable() {
    let (registry, _) = with_image().await;
    // The first failure may be an idle connection that was just closed, so there is exactly one retry.
    registry.script(Rule::on_all().times(1).does(Behavior::Refuse));
    get(&hurried(&registry), &registry).await.unwrap();
    registry.script(Rule::on_all().does(Behavior::Refuse));
    let client = limited(named(&registry), Anonymous, short(), HostLimits::none());
    let error = get(&client, &registry).await.unwrap_err();
    assert_eq!(registry.log().len(), 4);
    assert_eq!(error.kind(), SourceErrorKind::Unavailable);
    assert!(error.to_string().starts_with("GET manifest app:latest from http://127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn missing_headers_time_out() {
    let (registry, _) = with_image().await;
    let gate = Gate::new();
    registry.script(Rule::on_all().times(1).does(Behavior::DelayHeaders(gate.clone())));
    let (client, began) = (hurried(&registry), Instant::now());
    assert_eq!(get(&client, &registry).await.unwrap_err().kind(), SourceErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    gate.open();
    get(&client, &registry).await.unwrap();
}

#[tokio::test]
async fn stalled_blob_yields_received_bytes_then_times_out() {
    let (registry, image) = with_image().await;
    let (digest, bytes) = image.blobs().iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let app = registry.repository("app").unwrap();
    registry.script(Rule::on(Target::Blob).does(Behavior::Stall { after: 1000, until: Gate::new() }));
    let blob = hurried(&registry).blob(&app, digest, ByteRange::Full).await.unwrap().content;
    let error = read(blob).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::TimedOut);
    assert!(error.to_string().contains("after 1000 bytes"), "{error}");

    registry.clear_script();
    let gate = Gate::new();
    registry.script(Rule::on(Target::Blob).does(Behavior::Stall { after: 1000, until: gate.clone() }));
    let blob = anonymous(&registry).blob(&app, digest, ByteRange::Full).await.unwrap().content;
    let reading = tokio::spawn(read(blob));
    registry.wait_for(|log| log.iter().filter(|entry| entry.bytes_sent == 1000).count() == 2).await;
    gate.open();
    assert_eq!(reading.await.unwrap().unwrap(), *bytes);
}

#[tokio::test]
async fn stalled_manifest_times_out() {
    let (registry, _) = with_image().await;
    registry.script(Rule::on(Target::Manifest).does(Behavior::Stall { after: 10, until: Gate::new() }));
    assert_eq!(get(&hurried(&registry), &registry).await.unwrap_err().kind(), SourceErrorKind::TimedOut);
}

#[tokio::test]
async fn truncation_is_detected() {
    let (registry, image) = with_image().await;
    let (digest, _) = image.blobs().iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let (app, client) = (registry.repository("app").unwrap(), anonymous(&registry));
    registry.script(Rule::on_all().does(Behavior::Truncate { after: 100 }));
    for range in [ByteRange::Full, ByteRange::From { first: 10, last: None }] {
        let blob = client.blob(&app, digest, range).await.unwrap().content;
        let error = read(blob).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Unavailable);
        assert!(error.to_string().contains("after 100 bytes"), "{error}");
    }
    assert_eq!(get(&client, &registry).await.unwrap_err().kind(), SourceErrorKind::Unavailable);
}

#[tokio::test]
async fn wrong_manifests_are_rejected() {
    let (registry, image) = with_image().await;
    let (app, client) = (registry.repository("app").unwrap(), anonymous(&registry));
    let other = SampleImage::small(2);
    let valid_but_other = Behavior::Answer {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: other.index().bytes().clone(),
    };
    let html = Behavior::Answer {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/html"))]),
        body: Bytes::from_static(b"<html>Please log in</html>"),
    };
    let wrong_header = Behavior::Headers(vec![(
        http::HeaderName::from_static("docker-content-digest"),
        HeaderValue::from_str(other.index().digest().as_str()).ok(),
    )]);
    let by_digest = TagOrDigest::Digest(image.index().digest().clone());
    for (behavior, at) in [
        (Behavior::WrongBytes, tag("latest")),
        (Behavior::WrongBytes, by_digest.clone()),
        (html.clone(), tag("latest")),
        (html, by_digest.clone()),
        (valid_but_other, by_digest.clone()),
        (wrong_header.clone(), tag("latest")),
        (Behavior::TooManyBytes { extra: 7, chunked: true }, by_digest.clone()),
        (Behavior::TooManyBytes { extra: 7, chunked: false }, by_digest.clone()),
        (Behavior::TooManyBytes { extra: MAX_MANIFEST_BYTES, chunked: true }, tag("latest")),
        (Behavior::TooManyBytes { extra: MAX_MANIFEST_BYTES, chunked: false }, tag("latest")),
        (Behavior::status(StatusCode::NO_CONTENT), tag("latest")),
    ] {
        registry.clear_script();
        registry.script(Rule::on(Target::Manifest).does(behavior.clone()));
        let error = client.manifest(&app, &at, Freshness::Cached).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::InvalidContent, "{at} {error}");
    }
    registry.clear_script();
    registry.script(Rule::on(Target::Manifest).does(wrong_header));
    let error = client.resolve(&app, &by_digest, Freshness::Cached).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::InvalidContent);
}

#[tokio::test]
async fn oversized_manifest_is_not_read_to_its_end() {
    let (registry, _) = with_image().await;
    let extra = 64 << 20;
    registry.script(Rule::on(Target::Manifest).does(Behavior::TooManyBytes { extra, chunked: true }));
    let error = get(&anonymous(&registry), &registry).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::InvalidContent);
    let log = registry.wait_for(|log| log.iter().all(|entry| entry.finished)).await;
    assert!(log[0].bytes_sent < (MAX_MANIFEST_BYTES as u64) * 4, "{}", log[0].bytes_sent);
}

#[tokio::test]
async fn status_maps_to_error_kind() {
    let (registry, _) = with_image().await;
    let client = limited(named(&registry), Anonymous, Timeouts::default(), HostLimits::none());
    for (status, expected) in [
        (StatusCode::FORBIDDEN, SourceErrorKind::Denied),
        (StatusCode::INTERNAL_SERVER_ERROR, SourceErrorKind::Unavailable),
        (StatusCode::SERVICE_UNAVAILABLE, SourceErrorKind::Unavailable),
        (StatusCode::TOO_MANY_REQUESTS, SourceErrorKind::RateLimited),
        (StatusCode::UNAUTHORIZED, SourceErrorKind::Unauthorized),
        (StatusCode::IM_A_TEAPOT, SourceErrorKind::Unsupported),
    ] {
        registry.clear_script();
        registry.script(Rule::on_all().does(Behavior::status(status)));
        assert_eq!(get(&client, &registry).await.unwrap_err().kind(), expected, "{status}");
    }
}

#[tokio::test]
async fn rate_limit_reports_retry_after() {
    let (registry, _) = with_image().await;
    registry.script(Rule::on_all().does(Behavior::Answer {
        status: StatusCode::TOO_MANY_REQUESTS,
        headers: HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("77"))]),
        body: Bytes::from_static(br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#),
    }));
    let error = get(&anonymous(&registry), &registry).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(77)));
    assert!(error.to_string().ends_with("TOOMANYREQUESTS: slow down"), "{error}");
    assert_eq!(registry.count(Target::Manifest), 1, "it is not retried at once");
}

#[tokio::test]
async fn blob_bytes_beyond_declared_length_are_rejected() {
    let (registry, image) = with_image().await;
    let (digest, bytes) = image.blobs().iter().next().unwrap();
    let (app, client) = (registry.repository("app").unwrap(), anonymous(&registry));
    // Without a length only verification by digest detects this.
    registry.script(Rule::on(Target::Blob).does(Behavior::TooManyBytes { extra: 10, chunked: true }));
    let blob = client.blob(&app, digest, ByteRange::Full).await.unwrap().content;
    assert_eq!(blob.size, None);
    let read_all = read(blob).await.unwrap();
    assert_eq!(read_all.len(), bytes.len() + 10);
    assert_ne!(Digest::sha256(&read_all), *digest);
    // With a range, the length is known.
    let range = ByteRange::From { first: 0, last: Some(4) };
    let blob = client.blob(&app, digest, range).await.unwrap().content;
    assert_eq!(read(blob).await.unwrap_err().kind(), SourceErrorKind::InvalidContent);
}

#[tokio::test]
async fn missing_tls_handshake_times_out() {
    // The kernel accepts the connection; no data is ever sent on it.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = silent.local_addr().unwrap().to_string();
    let upstreams = Upstreams::default().overriding(&format!("{host}=https://{host}")).unwrap();
    let app = RepositoryName::new(&host, "app").unwrap();
    let client = client(upstreams, Anonymous, short());
    let error = client.manifest(&app, &tag("latest"), Freshness::Cached).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::TimedOut);
    assert!(error.chain().contains("no connection within 300ms"), "{}", error.chain());
}
