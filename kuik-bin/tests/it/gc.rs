//! `kuik gc`: removes unreferenced content, keeps images, and refuses a directory in use.

use std::{
    path::Path,
    process::{Command, Output},
};

use bytes::Bytes;
use kuik_core::{
    content::{ContentStore, Digest, Verifier},
    reference::RepositoryName,
};
use kuik_proxy::store::FilesystemStore;
use kuik_testkit::SampleImage;

fn gc(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kuik"));
    command.args(["gc", "--data-dir"]).arg(data).args(arguments).output().unwrap()
}

async fn keep(store: &FilesystemStore, repository: &RepositoryName, content: &Bytes) -> Digest {
    let digest = Digest::sha256(content);
    let mut verifier = Verifier::new(&digest).unwrap();
    verifier.update(content);
    let mut writer = store.write_blob().await.unwrap();
    writer.append(std::slice::from_ref(content)).await.unwrap();
    writer.publish(verifier.finish().unwrap(), std::slice::from_ref(repository)).await.unwrap();
    digest
}

/// A directory with a tagged image, and a blob that belongs to none.
async fn filled(data: &Path) -> (SampleImage, Digest) {
    let store = FilesystemStore::open(data).unwrap();
    let repository = RepositoryName::local("app").unwrap();
    let image = SampleImage::small(1);
    for content in image.blobs().values() {
        keep(&store, &repository, content).await;
    }
    for manifest in image.manifests() {
        store.put_manifest(&repository, manifest, None).await.unwrap();
    }
    store.put_manifest(&repository, image.index(), Some(&"v1".parse().unwrap())).await.unwrap();
    let orphan = keep(&store, &repository, &Bytes::from_static(b"nobody's")).await;
    (image, orphan)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn gc_removes_exactly_the_unreferenced_content() {
    let data = tempfile::tempdir().unwrap();
    let (image, orphan) = filled(data.path()).await;
    let line = format!("8\t{orphan}\n");

    let young = gc(data.path(), &[]);
    assert!(young.status.success() && young.stdout.is_empty(), "{young:?}");
    let dry = gc(data.path(), &["--grace", "0s", "--dry-run"]);
    assert_eq!(text(&dry.stdout), line);
    assert!(text(&dry.stderr).starts_with("1 blobs would be removed, 8 bytes;"), "{dry:?}");
    let done = gc(data.path(), &["--grace", "0s"]);
    assert_eq!(text(&done.stdout), line, "a dry run removed nothing");
    let again = gc(data.path(), &["--grace", "0s", "--delete-untagged"]);
    assert!(again.status.success() && again.stdout.is_empty(), "{again:?}");

    let store = FilesystemStore::open(data.path()).unwrap();
    assert_eq!(store.has_blob(&orphan).await.unwrap(), None);
    let manifests = image.manifests().iter().chain([image.index()]).map(kuik_core::content::Manifest::digest);
    for digest in image.blobs().keys().chain(manifests) {
        assert!(store.has_blob(digest).await.unwrap().is_some(), "{digest}");
    }
}

#[tokio::test]
async fn gc_refuses_a_directory_in_use() {
    let data = tempfile::tempdir().unwrap();
    filled(data.path()).await;
    let _open = FilesystemStore::open(data.path()).unwrap();
    let refused = gc(data.path(), &["--grace", "0s"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is in use by another process"), "{refused:?}");
    let absent = gc(&data.path().join("absent"), &[]);
    assert_eq!(absent.status.code(), Some(2), "{absent:?}");
}
