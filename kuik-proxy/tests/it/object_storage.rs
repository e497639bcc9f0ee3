//! Conformance of the object store, also with several processes on one bucket.

#![cfg(feature = "object-storage")]

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt as _;
use kuik_core::{
    content::{
        ByteRange, ContentSource as _, ContentStore as _, Digest, RegistryStore, SourceErrorKind, TagPage,
        Verifier,
    },
    reference::RepositoryName,
};
use kuik_proxy::store::ObjectStorage;
use kuik_testkit::store_conformance;
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory};

fn open(bucket: &Arc<InMemory>, prefix: &str, scratch: &Path) -> ObjectStorage {
    ObjectStorage::new(bucket.clone(), "memory", prefix, scratch)
}

fn app() -> RepositoryName {
    RepositoryName::local("app").unwrap()
}

async fn conforms(store: &ObjectStorage, alone: bool) {
    let store: Arc<dyn RegistryStore> = Arc::new(store.clone());
    for behavior in store_conformance::BEHAVIORS {
        if alone || !behavior.requires_exclusive_store() {
            behavior.check(store.clone()).await.unwrap_or_else(|violation| panic!("{violation}"));
        }
    }
}

async fn keys(bucket: &InMemory) -> Vec<String> {
    bucket.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn object_store_conforms_with_several_processes_and_a_prefix() {
    let (bucket, scratch) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let one = open(&bucket, "", scratch.path());
    let other = open(&bucket, "", scratch.path());
    let below = open(&bucket, "a/b", scratch.path());
    tokio::join!(
        conforms(&one, false),
        conforms(&one, false),
        conforms(&other, false),
        conforms(&below, true)
    );
    conforms(&other, true).await;
    let keys = keys(&bucket).await;
    assert!(
        keys.iter().all(|key| ["docker/registry/v2/", ".kuik/", "a/b/"].iter().any(|of| key.starts_with(of)))
    );
}

/// Two processes append to one upload: one of them fails, and no bytes are mixed.
#[tokio::test]
async fn concurrent_appends_at_one_offset_conflict() {
    let (bucket, scratch) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let (one, other) = (open(&bucket, "", scratch.path()), open(&bucket, "", scratch.path()));
    let id = one.start_upload(&app()).await.unwrap();
    let mut first = one.upload(&app(), &id).await.unwrap();
    let mut second = other.upload(&app(), &id).await.unwrap();
    first.append(&[Bytes::from_static(b"hello")]).await.unwrap();
    let refused = second.append(&[Bytes::from_static(b"HELLO WORLD")]).await.unwrap_err();
    assert_eq!(refused.kind(), SourceErrorKind::Unavailable);
    drop((first, second));
    let mut resumed = other.upload(&app(), &id).await.unwrap();
    assert_eq!(resumed.offset(), 5);
    resumed.append(&[Bytes::from_static(b" world")]).await.unwrap();
    resumed.finish(&Digest::sha256(b"hello world")).await.unwrap();
    assert_eq!(one.blob_size(&app(), &Digest::sha256(b"hello world")).await.unwrap().content, 11);
    assert!(!keys(&bucket).await.iter().any(|key| key.contains("_uploads")));
}

/// More than one part, so that it is a multipart upload, which is aborted if the digest is wrong.
#[tokio::test]
async fn multipart_blob_is_complete_or_absent() {
    let (bucket, scratch) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let store = open(&bucket, "", scratch.path());
    let content: Bytes = (0..20_000_003_u32).map(|n| (n % 251) as u8).collect();
    let digest = Digest::sha256(&content);
    for (expected, right) in [(Digest::sha256(b"another"), false), (digest.clone(), true)] {
        let id = store.start_upload(&app()).await.unwrap();
        let mut upload = store.upload(&app(), &id).await.unwrap();
        for chunk in content.chunks(7_000_000) {
            upload.append(&[content.slice_ref(chunk)]).await.unwrap();
        }
        assert_eq!(upload.finish(&expected).await.is_ok(), right);
        assert_eq!(store.has_blob(&expected).await.unwrap().is_some(), right);
    }
    let mut writer = store.write_blob().await.unwrap();
    writer.append(std::slice::from_ref(&content)).await.unwrap();
    let mut verifier = Verifier::new(&digest).unwrap();
    verifier.update(&content);
    writer.publish(verifier.finish().unwrap(), &[app()]).await.unwrap();
    let read = store.blob(&app(), &digest, ByteRange::Full).await.unwrap().content.body;
    let read: Vec<Bytes> = read.try_collect().await.unwrap();
    assert!(read.concat() == content);
}

/// Linked bytes count as young, whatever their age; the age marker is removed with the bytes.
#[tokio::test]
async fn linking_renews_the_age_of_bytes() {
    let (bucket, scratch) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let store = open(&bucket, "", scratch.path());
    let mut digests = Vec::new();
    for content in [&b"one"[..], b"two", b"three"] {
        let mut writer = store.write_blob().await.unwrap();
        writer.append(&[Bytes::copy_from_slice(content)]).await.unwrap();
        let mut verifier = Verifier::new(&Digest::sha256(content)).unwrap();
        verifier.update(content);
        writer.publish(verifier.finish().unwrap(), &[app()]).await.unwrap();
        digests.push(Digest::sha256(content));
    }
    let before: Vec<_> = store.blobs().try_collect().await.unwrap();
    let newest = before.iter().map(|blob| blob.modified).max().unwrap();
    let renewed = before[1].digest.clone();
    // A marker of removed bytes is skipped.
    bucket
        .put(&format!(".kuik/renewed/sha256/{}", "0".repeat(64)).into(), Bytes::new().into())
        .await
        .unwrap();
    store.link_blob(&app(), &renewed).await.unwrap();
    let after: Vec<_> = store.blobs().try_collect().await.unwrap();
    let younger: Vec<_> = after.iter().filter(|blob| blob.modified > newest).collect();
    assert_eq!(younger.iter().map(|blob| &blob.digest).collect::<Vec<_>>(), [&renewed]);
    store.remove_blob(&renewed).await.unwrap();
    assert!(!keys(&bucket).await.iter().any(|key| key.contains(renewed.encoded())
        && (key.starts_with(".kuik/renewed") || key.contains("/blobs/"))));
}

/// Keys are listed in another order than tags: a tag that extends another sorts after it.
#[tokio::test]
async fn tag_pages_are_in_order_from_any_start() {
    let (bucket, scratch) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let store = open(&bucket, "", scratch.path());
    let mut tags =
        vec!["v".to_owned(), "v-1".to_owned(), "v.1-a".to_owned(), "v.1".to_owned(), "w".to_owned()];
    tags.extend((0..300).map(|n| format!("v-1.{n}-slim")));
    tags.extend((0..300).step_by(3).map(|n| format!("v-1.{n}")));
    for tag in &tags {
        let key = format!("docker/registry/v2/repositories/app/_manifests/tags/{tag}/current/link");
        bucket.put(&key.into(), Digest::sha256(b"x").as_str().to_owned().into()).await.unwrap();
    }
    tags.sort_unstable();
    for limit in [1, 2, 7, 100, 1000] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let list =
                store.tags(&app(), &TagPage { limit: Some(limit), after: after.clone() }).await.unwrap();
            after = list.tags.last().cloned();
            seen.extend(list.tags);
            if !list.more {
                break;
            }
        }
        assert_eq!(seen, tags, "pages of {limit}");
    }
    for after in ["v-", "v-1.7/../x", "\u{fc}", "v-1.100-slim%", "..", "w"] {
        let list = store.tags(&app(), &TagPage { limit: None, after: Some(after.to_owned()) }).await.unwrap();
        let expected: Vec<_> = tags.iter().filter(|tag| tag.as_str() > after).cloned().collect();
        assert_eq!(list.tags, expected, "after {after:?}");
    }
}
