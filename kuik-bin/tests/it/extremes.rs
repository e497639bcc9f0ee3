//! Limits of `kuik-registry`: content at and just above the maximum size, depth and count is accepted or rejected, with
//! bounded pulls, deletes and garbage collection.

use std::{fs, path::Path};

use crate::support::{Answer, Kuik, Transfer, blob_data, get};
use futures::{StreamExt as _, stream};
use kuik_core::content::{Digest, MAX_MANIFEST_BYTES};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A registry that allows anonymous pushes, and collects everything at once on request.
async fn registry(data: &Path, sparse: &str) -> Kuik {
    let eager = ["--gc-interval", "never", "--gc-grace", "0s", "--gc-delete-untagged"];
    Kuik::registry(data, &[&["--allow-anonymous-push", "--sparse", sparse], &eager[..]].concat()).await
}

async fn send(kuik: &Kuik, method: &str, target: &str, media_type: &str, body: &[u8]) -> Answer {
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    Transfer::raw(kuik.address(), &request).await.answer().await
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::sha256(bytes).as_str(), "size": bytes.len() })
}

fn index(manifests: &[Value], subject: Option<&Value>) -> Vec<u8> {
    let mut index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    if let Some(subject) = subject {
        index["subject"] = subject.clone();
    }
    index.to_string().into_bytes()
}

fn image(config: &[u8], number: usize, subject: Option<&Value>) -> Vec<u8> {
    let annotations = json!({ "number": number.to_string() });
    let mut image = json!({
        "schemaVersion": 2, "mediaType": IMAGE, "config": descriptor(CONFIG, config), "layers": [],
        "annotations": annotations,
    });
    if let Some(subject) = subject {
        image["subject"] = subject.clone();
    }
    image.to_string().into_bytes()
}

/// Pushes a manifest by its digest, and to a tag if given.
async fn put(kuik: &Kuik, tag: Option<&str>, media_type: &str, bytes: &[u8]) {
    let at = tag.map_or_else(|| Digest::sha256(bytes).to_string(), str::to_owned);
    let put = send(kuik, "PUT", &format!("/v2/app/manifests/{at}"), media_type, bytes).await;
    assert_eq!(put.status, 201, "{put:?}");
}

async fn push_blob(kuik: &Kuik, bytes: &[u8]) {
    let path = format!("/v2/app/blobs/uploads/?digest={}", Digest::sha256(bytes));
    assert_eq!(send(kuik, "POST", &path, "application/octet-stream", bytes).await.status, 201);
}

async fn has(kuik: &Kuik, bytes: &[u8]) {
    let found = get(kuik.address(), &format!("/v2/app/manifests/{}", Digest::sha256(bytes))).await;
    assert_eq!(found.status, 200, "{found:?}");
    assert!(found.body == bytes, "it is another one");
}

/// Deletes a manifest with all its tags, and then all garbage; returns how many things that were.
async fn deleted(kuik: &Kuik, bytes: &[u8]) -> u64 {
    let path = format!("/v2/app/manifests/{}", Digest::sha256(bytes));
    assert_eq!(send(kuik, "DELETE", &path, "", b"").await.status, 202);
    collected(kuik).await
}

async fn collected(kuik: &Kuik) -> u64 {
    let done = send(kuik, "POST", "/kuik/v1/gc", "", b"").await;
    assert_eq!(done.status, 200, "{done:?}");
    serde_json::from_slice::<Value>(&done.body).unwrap()["removed"].as_u64().unwrap()
}

#[tokio::test]
async fn a_manifest_of_four_mebibytes_is_the_largest() {
    let data = tempfile::tempdir().unwrap();
    let kuik = registry(data.path(), "indexes").await;
    let of_size = |size: usize| {
        let mut text = index(&[], None);
        text.resize(size, b' ');
        text
    };
    let (largest, larger) = (of_size(MAX_MANIFEST_BYTES), of_size(MAX_MANIFEST_BYTES + 1));
    put(&kuik, Some("v1"), INDEX, &largest).await;
    has(&kuik, &largest).await;

    for at in ["v2".to_owned(), Digest::sha256(&larger).to_string()] {
        let path = format!("/v2/app/manifests/{at}");
        let refused = send(&kuik, "PUT", &path, INDEX, &larger).await;
        assert_eq!((refused.status, refused.error_code()), (413, "SIZE_INVALID".to_owned()));
        assert_eq!(get(kuik.address(), &path).await.status, 404);
    }
    assert!(blob_data(data.path(), &Digest::sha256(&largest)).exists());
    assert!(!blob_data(data.path(), &Digest::sha256(&larger)).exists());
    let tags = get(kuik.address(), "/v2/app/tags/list").await;
    assert_eq!(serde_json::from_slice::<Value>(&tags.body).unwrap()["tags"], json!(["v1"]));
    assert_eq!(deleted(&kuik, &largest).await, 1, "nothing else was kept");
}

#[tokio::test]
async fn an_index_that_says_the_same_again_and_again_is_one_index() {
    let data = tempfile::tempdir().unwrap();
    let kuik = registry(data.path(), "nothing").await;
    let config = b"{}";
    push_blob(&kuik, config).await;
    let child = image(config, 0, None);
    put(&kuik, None, IMAGE, &child).await;
    // A thousand times the same child, which is its subject too.
    let child_descriptor = descriptor(IMAGE, &child);
    let parent = index(&vec![child_descriptor.clone(); 1000], Some(&child_descriptor));
    put(&kuik, Some("v1"), INDEX, &parent).await;
    assert_eq!(collected(&kuik).await, 0);
    has(&kuik, &parent).await;
    has(&kuik, &child).await;
    assert_eq!(deleted(&kuik, &parent).await, 3, "the index, its one child, and that one's config");
    assert!(!blob_data(data.path(), &Digest::sha256(config)).exists());
}

#[tokio::test]
async fn gc_collects_untagged_reference_cycles() {
    let data = tempfile::tempdir().unwrap();
    let kuik = registry(data.path(), "indexes").await;
    // The last lists the subject of its own subject: it holds the first, that its referrer, and that the last.
    let first = index(&[], None);
    let of_first = descriptor(INDEX, &first);
    let second = index(&[], Some(&of_first));
    let third = index(std::slice::from_ref(&of_first), Some(&descriptor(INDEX, &second)));
    for (tag, bytes) in [(None, &first), (None, &second), (Some("v1"), &third)] {
        put(&kuik, tag, INDEX, bytes).await;
    }
    assert_eq!(collected(&kuik).await, 0);
    for bytes in [&first, &second, &third] {
        has(&kuik, bytes).await;
    }
    assert_eq!(send(&kuik, "DELETE", "/v2/app/manifests/v1", "", b"").await.status, 202);
    assert_eq!(collected(&kuik).await, 3);
}

#[tokio::test]
async fn indexes_in_indexes_are_followed_however_deep_and_whether_they_are_there_or_not() {
    const DEEP: usize = 300;
    let data = tempfile::tempdir().unwrap();
    let kuik = registry(data.path(), "indexes").await;
    let mut nested = vec![index(&[], None)];
    for _ in 1..DEEP {
        let inner = descriptor(INDEX, nested.last().unwrap());
        nested.push(index(std::slice::from_ref(&inner), Some(&inner)));
    }
    // From the outside in: each is sparse until the next one comes.
    let outermost = nested.last().unwrap();
    put(&kuik, Some("v1"), INDEX, outermost).await;
    assert_eq!(collected(&kuik).await, 0);
    for inner in nested.iter().rev().skip(1) {
        put(&kuik, None, INDEX, inner).await;
    }
    assert_eq!(collected(&kuik).await, 0, "the outermost holds them all");
    has(&kuik, &nested[0]).await;
    assert_eq!(deleted(&kuik, outermost).await, DEEP as u64);
}

/// No bytes have a digest that is written in them, so this is a damaged disk.
#[tokio::test]
async fn index_that_refers_to_itself_is_corrupt_and_affects_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let kuik = registry(data.path(), "indexes").await;
    let (sound, itself) = (
        index(&[], None),
        index(
            &[json!({ "size": 1 })][..0],
            Some(&json!({
                "mediaType": INDEX, "digest": Digest::sha256(b"before").as_str(), "size": 6
            })),
        ),
    );
    put(&kuik, Some("sound"), INDEX, &sound).await;
    put(&kuik, Some("itself"), INDEX, &itself).await;
    let digest = Digest::sha256(&itself);
    let own = json!({ "mediaType": INDEX, "digest": digest.as_str(), "size": 6 });
    fs::write(blob_data(data.path(), &digest), index(std::slice::from_ref(&own), Some(&own))).unwrap();

    for at in ["itself", digest.as_str()] {
        let refused = get(kuik.address(), &format!("/v2/app/manifests/{at}")).await;
        assert!(refused.status >= 400, "content with a wrong digest must not be served: {refused:?}");
    }
    collected(&kuik).await;
    has(&kuik, &sound).await;
    assert_eq!(send(&kuik, "DELETE", &format!("/v2/app/manifests/{digest}"), "", b"").await.status, 202);
    collected(&kuik).await;
    has(&kuik, &sound).await;
    put(&kuik, Some("itself"), INDEX, &itself).await;
    has(&kuik, &itself).await;
}

#[tokio::test]
async fn an_index_of_a_thousand_platforms_is_pushed_pulled_and_referred_to() {
    const PLATFORMS: usize = 1000;
    let data = tempfile::tempdir().unwrap();
    let kuik = registry(data.path(), "nothing").await;
    let config = b"{}";
    push_blob(&kuik, config).await;
    let base = index(&[], None);
    put(&kuik, Some("base"), INDEX, &base).await;
    let subject = descriptor(INDEX, &base);
    let images: Vec<_> = (0..PLATFORMS).map(|number| image(config, number, Some(&subject))).collect();
    let pushes: Vec<_> = images.iter().map(|image| put(&kuik, None, IMAGE, image)).collect();
    stream::iter(pushes).buffer_unordered(8).collect::<()>().await;

    let platform = |number: usize| json!({ "architecture": format!("cpu{number}"), "os": "linux" });
    let mut entries: Vec<_> = images.iter().map(|image| descriptor(IMAGE, image)).collect();
    for (number, entry) in entries.iter_mut().enumerate() {
        entry["platform"] = platform(number);
    }
    let fat = index(&entries, None);
    put(&kuik, Some("v1"), INDEX, &fat).await;
    let signature = image(config, PLATFORMS, Some(&descriptor(INDEX, &fat)));
    put(&kuik, None, IMAGE, &signature).await;

    assert_eq!(collected(&kuik).await, 0);
    has(&kuik, &fat).await;
    has(&kuik, &images[PLATFORMS - 1]).await;
    for (of, expected) in [(&base, PLATFORMS), (&fat, 1)] {
        let path = format!("/v2/app/referrers/{}", Digest::sha256(of));
        let referrers: Value = serde_json::from_slice(&get(kuik.address(), &path).await.body).unwrap();
        assert_eq!(referrers["manifests"].as_array().unwrap().len(), expected);
    }
    let pulls: Vec<_> = images.iter().map(|image| has(&kuik, image)).collect();
    stream::iter(pulls).buffer_unordered(8).collect::<()>().await;
    assert_eq!(deleted(&kuik, &fat).await, 2, "the index and its signature: the base holds the rest");
    assert_eq!(deleted(&kuik, &base).await, PLATFORMS as u64 + 2, "the base, its referrers and their config");
}
