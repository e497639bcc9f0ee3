//! Reading with the registry client: manifests, blobs with ranges, tags, referrers.
#![cfg(feature = "client")]

use crate::support::{anonymous, read, tag};
use http::{
    HeaderValue, Method, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, HOST, USER_AGENT},
};
use kuik_core::content::{
    ByteRange, ContentSource, Digest, Freshness, Manifest, MediaType, SourceErrorKind, TagOrDigest, TagPage,
};
use kuik_testkit::{Behavior, Rule, SampleImage, ScriptedRegistry, Target};

async fn with_image() -> (ScriptedRegistry, SampleImage) {
    let registry = ScriptedRegistry::start().await.unwrap();
    let image = SampleImage::small(1);
    registry.add_image("team/app", "latest", &image);
    (registry, image)
}

#[tokio::test]
async fn whole_image_is_read() {
    let (registry, image) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());

    let resolved = client.resolve(&app, &tag("latest"), Freshness::Cached).await.unwrap().content;
    assert_eq!(resolved, image.index().descriptor());
    let index = client.manifest(&app, &tag("latest"), Freshness::Cached).await.unwrap().content;
    assert_eq!(&index, image.index());
    for manifest in image.manifests() {
        let at = TagOrDigest::Digest(manifest.digest().clone());
        assert_eq!(
            client.resolve(&app, &at, Freshness::Cached).await.unwrap().content,
            manifest.descriptor()
        );
        assert_eq!(&client.manifest(&app, &at, Freshness::Cached).await.unwrap().content, manifest);
    }
    for (digest, bytes) in image.blobs() {
        let size = client.blob_size(&app, digest).await.unwrap().content;
        assert_eq!(size, bytes.len() as u64);
        let blob = client.blob(&app, digest, ByteRange::Full).await.unwrap().content;
        assert_eq!((blob.size, blob.range.clone()), (Some(size), None));
        assert_eq!(read(blob).await.unwrap(), *bytes);
    }
}

#[tokio::test]
async fn requests_carry_only_the_needed_headers() {
    let (registry, _) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
    client.manifest(&app, &tag("latest"), Freshness::Cached).await.unwrap();
    client.manifest(&app, &tag("latest"), Freshness::Revalidate).await.unwrap();
    let log = registry.log();
    assert_eq!(log.len(), 2);
    // One line, because some proxies forward only one of several.
    assert_eq!(log[0].headers.get_all(ACCEPT).iter().count(), 1);
    assert_eq!(log[0].header(ACCEPT), MediaType::MANIFESTS.each_ref().map(MediaType::as_str).join(", "));
    assert_eq!(log[0].header(USER_AGENT), concat!("kuik/", env!("CARGO_PKG_VERSION")));
    assert_eq!((log[0].header(CACHE_CONTROL), log[1].header(CACHE_CONTROL)), ("", "no-cache"));
    let sent: Vec<_> =
        log[0].headers.keys().filter(|name| ![ACCEPT, USER_AGENT, HOST].contains(name)).collect();
    assert!(sent.is_empty(), "{sent:?}");
}

#[tokio::test]
async fn range_is_sent_and_response_range_checked() {
    let (registry, image) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
    let (digest, bytes) = image.blobs().iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let size = bytes.len() as u64;
    for (range, expected) in [
        (ByteRange::From { first: 5, last: Some(9) }, 5..10),
        (ByteRange::From { first: 5, last: None }, 5..size),
        (ByteRange::Suffix { length: 7 }, size - 7..size),
    ] {
        let blob = client.blob(&app, digest, range).await.unwrap().content;
        assert_eq!((blob.size, blob.range.clone()), (Some(size), Some(expected.clone())));
        let part = expected.start as usize..expected.end as usize;
        assert_eq!(read(blob).await.unwrap(), bytes[part]);
    }
    let beyond = ByteRange::From { first: size, last: None };
    assert_eq!(
        client.blob(&app, digest, beyond).await.unwrap_err().kind(),
        SourceErrorKind::RangeNotSatisfiable
    );
}

#[tokio::test]
async fn ignored_range_is_reported_as_full_content() {
    let (registry, image) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
    let (digest, bytes) = image.blobs().iter().next().unwrap();
    registry.script(Rule::on(Target::Blob).does(Behavior::IgnoreRange));
    let range = ByteRange::From { first: 1, last: Some(2) };
    let blob = client.blob(&app, digest, range).await.unwrap().content;
    assert_eq!((blob.size, blob.range.clone()), (Some(bytes.len() as u64), None));
    assert_eq!(read(blob).await.unwrap(), *bytes);

    registry.clear_script();
    let lie = Some(HeaderValue::from_static("bytes 0-1/9999"));
    registry.script(Rule::on(Target::Blob).does(Behavior::Headers(vec![(http::header::CONTENT_RANGE, lie)])));
    assert_eq!(client.blob(&app, digest, range).await.unwrap_err().kind(), SourceErrorKind::InvalidContent);
}

#[tokio::test]
async fn blob_without_length_is_read_to_its_end() {
    let (registry, image) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
    let (digest, bytes) = image.blobs().iter().next().unwrap();
    registry.script(Rule::on(Target::Blob).does(Behavior::NoLength));
    let blob = client.blob(&app, digest, ByteRange::Full).await.unwrap().content;
    assert_eq!((blob.size, blob.len()), (None, None));
    assert_eq!(read(blob).await.unwrap(), *bytes);
    assert_eq!(client.blob_size(&app, digest).await.unwrap_err().kind(), SourceErrorKind::InvalidContent);
}

#[tokio::test]
async fn get_is_used_if_head_is_insufficient() {
    let digest_header = http::HeaderName::from_static("docker-content-digest");
    for behavior in [
        Behavior::status(StatusCode::METHOD_NOT_ALLOWED),
        Behavior::NoLength,
        Behavior::Headers(vec![(digest_header.clone(), None)]),
        Behavior::Headers(vec![(digest_header, Some(HeaderValue::from_static("sha256:short")))]),
        Behavior::Headers(vec![(CONTENT_LENGTH, Some(HeaderValue::from_static("0")))]),
    ] {
        let (registry, image) = with_image().await;
        let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
        registry.script(Rule::on_all().method(Method::HEAD).does(behavior.clone()));
        let resolved = client.resolve(&app, &tag("latest"), Freshness::Cached).await.unwrap();
        assert_eq!(resolved.content, image.index().descriptor(), "{behavior:?}");
        let methods: Vec<_> = registry.log().iter().map(|entry| entry.method.clone()).collect();
        assert_eq!(methods, [Method::HEAD, Method::GET], "{behavior:?}");
    }
    let (registry, image) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
    registry.script(
        Rule::on(Target::Blob).method(Method::HEAD).does(Behavior::status(StatusCode::METHOD_NOT_ALLOWED)),
    );
    let (digest, bytes) = image.blobs().iter().next().unwrap();
    assert_eq!(client.blob_size(&app, digest).await.unwrap().content, bytes.len() as u64);
}

#[tokio::test]
async fn tags_are_paginated() {
    let (registry, image) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
    for tag in ["v1", "v2", "v3"] {
        registry.add_manifest("team/app", Some(tag), image.index());
    }
    let all = client.tags(&app, &TagPage::default()).await.unwrap();
    assert_eq!((all.tags, all.more), (["latest", "v1", "v2", "v3"].map(str::to_owned).to_vec(), false));
    let page = TagPage { limit: Some(2), after: Some("latest".to_owned()) };
    let some = client.tags(&app, &page).await.unwrap();
    assert_eq!((some.tags, some.more), (["v1", "v2"].map(str::to_owned).to_vec(), true));
    let missing = registry.repository("missing").unwrap();
    assert!(client.tags(&missing, &TagPage::default()).await.unwrap_err().is_not_found());
}

fn referrer(of: &Manifest) -> Manifest {
    let empty = Digest::sha256(b"{}");
    let bytes = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST.as_str(), "artifactType": "application/vnd.sbom",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty.as_str(), "size": 2},
        "layers": [], "subject": of.descriptor(),
    });
    Manifest::new(None, bytes.to_string().into()).unwrap()
}

#[tokio::test]
async fn referrers_are_found_with_and_without_the_api() {
    let (registry, image) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
    let sbom = referrer(image.index());
    registry.add_manifest("team/app", None, &sbom);
    let digest = image.index().digest();
    let listed = |index: &[u8]| String::from_utf8_lossy(index).matches(sbom.digest().as_str()).count();

    let found = client.referrers(&app, digest, None).await.unwrap();
    assert_eq!((listed(&found.index), found.filtered), (1, false));
    let found = client.referrers(&app, digest, Some("application/vnd.sbom")).await.unwrap();
    assert_eq!((listed(&found.index), found.filtered), (1, true));
    let found = client.referrers(&app, digest, Some("another/type+json")).await.unwrap();
    assert_eq!((listed(&found.index), found.filtered), (0, true));

    registry.set_referrers_api(false);
    let found = client.referrers(&app, digest, None).await.unwrap();
    assert_eq!((listed(&found.index), found.filtered), (0, false));
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [sbom.descriptor()]});
    let index = Manifest::new(Some(&MediaType::OCI_INDEX), index.to_string().into()).unwrap();
    registry.add_manifest("team/app", Some(&format!("sha256-{}", digest.encoded())), &index);
    let found = client.referrers(&app, digest, Some("ignored")).await.unwrap();
    assert_eq!((listed(&found.index), found.filtered), (1, false));
}

#[tokio::test]
async fn missing_content_is_not_found_with_registry_message() {
    let (registry, _) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
    let error = client.manifest(&app, &tag("gone"), Freshness::Cached).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::NotFound);
    assert_eq!(
        error.chain(),
        format!(
            "GET manifest team/app:gone from {}: 404 Not Found: MANIFEST_UNKNOWN: manifest unknown",
            registry.url()
        )
    );
    let digest = Digest::sha256(b"gone");
    for error in [
        client.blob(&app, &digest, ByteRange::Full).await.unwrap_err(),
        client.blob_size(&app, &digest).await.unwrap_err(),
        client.resolve(&app, &TagOrDigest::Digest(digest.clone()), Freshness::Cached).await.unwrap_err(),
    ] {
        assert!(error.is_not_found(), "{error}");
    }
}

#[tokio::test]
async fn connections_are_reused() {
    let (registry, image) = with_image().await;
    let (client, app) = (anonymous(&registry), registry.repository("team/app").unwrap());
    // An error response leaves its connection reusable too.
    for _ in 0..3 {
        client.manifest(&app, &tag("gone"), Freshness::Cached).await.unwrap_err();
    }
    let (digest, _) = image.blobs().iter().next().unwrap();
    read(client.blob(&app, digest, ByteRange::Full).await.unwrap().content).await.unwrap();
    assert_eq!(registry.connections(), 1);
}
