//! Uploads on disk: after a restart, and when the client does not return.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use futures::TryStreamExt as _;
use kuik_core::{
    content::{Algorithm, ContentSource as _, Digest, RegistryStore as _, UploadId},
    reference::RepositoryName,
};
use kuik_proxy::store::FilesystemStore;

fn app() -> RepositoryName {
    RepositoryName::local("app").unwrap()
}

fn upload_dir(dir: &Path, id: &UploadId) -> PathBuf {
    dir.join("docker/registry/v2/repositories/app/_uploads").join(id.as_str())
}

async fn begin(store: &FilesystemStore, content: &'static [u8]) -> UploadId {
    let id = store.start_upload(&app()).await.unwrap();
    store.upload(&app(), &id).await.unwrap().append(&[content.into()]).await.unwrap();
    id
}

#[tokio::test]
async fn upload_resumes_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let store = FilesystemStore::open(dir.path()).unwrap();
        let id = begin(&store, b"hello ").await;
        drop(store);
        // Written but not acknowledged before the process was killed: it is what the client sent, and is kept.
        let mut data = File::options().append(true).open(upload_dir(dir.path(), &id).join("data")).unwrap();
        data.write_all(b"wor").unwrap();

        let store = FilesystemStore::open(dir.path()).unwrap();
        let mut upload = store.upload(&app(), &id).await.unwrap();
        assert_eq!(upload.offset(), 9);
        upload.append(&["ld".into()]).await.unwrap();
        let digest = Digest::of(algorithm, b"hello world");
        upload.finish(&digest).await.unwrap();
        assert_eq!(store.blob_size(&app(), &digest).await.unwrap().content, 11);
        assert!(!upload_dir(dir.path(), &id).exists(), "a finished upload is removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn active_upload_is_not_disturbed_by_purges() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilesystemStore::open(dir.path()).unwrap();
    let id = begin(&store, b"hello").await;
    let purging = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                store.purge_uploads(SystemTime::UNIX_EPOCH).await.unwrap();
            }
        }
    });
    for _ in 0..2000 {
        assert_eq!(store.upload(&app(), &id).await.unwrap().offset(), 5);
    }
    assert!(!purging.is_finished(), "it purged all the time");
    purging.abort();
}

#[tokio::test]
async fn blob_from_an_old_upload_counts_as_new() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilesystemStore::open(dir.path()).unwrap();
    let id = begin(&store, b"hello").await;
    let long_ago = SystemTime::now() - Duration::from_secs(30 * 86_400);
    let data = File::open(upload_dir(dir.path(), &id).join("data")).unwrap();
    data.set_modified(long_ago).unwrap();
    store.upload(&app(), &id).await.unwrap().finish(&Digest::sha256(b"hello")).await.unwrap();
    let blobs: Vec<_> = store.blobs().try_collect().await.unwrap();
    assert!(blobs[0].modified > SystemTime::now() - Duration::from_secs(3600), "{blobs:?}");
}

#[tokio::test]
async fn purge_removes_only_idle_uploads() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilesystemStore::open(dir.path()).unwrap();
    let (idle, busy) = (begin(&store, b"idle").await, begin(&store, b"busy").await);
    let (recent, left) = (begin(&store, b"recent").await, begin(&store, b"left").await);
    let long_ago = SystemTime::now() - Duration::from_secs(30 * 86_400);
    for id in [&idle, &busy, &left] {
        let upload = upload_dir(dir.path(), id);
        fs::write(upload.join("startedat"), "2020-01-02T03:04:05Z").unwrap();
        File::open(upload.join("data")).unwrap().set_modified(long_ago).unwrap();
    }
    // Left by a crash of an upload that has just become a blob.
    fs::remove_file(upload_dir(dir.path(), &left).join("data")).unwrap();
    let foreign = upload_dir(dir.path(), &idle).with_file_name("not-an-upload");
    fs::create_dir(&foreign).unwrap();

    let held = store.upload(&app(), &busy).await.unwrap();
    let limit = SystemTime::now() - Duration::from_secs(7 * 86_400);
    assert_eq!(store.purge_uploads(limit).await.unwrap(), 2);
    for (id, stays) in [(&idle, false), (&left, false), (&busy, true), (&recent, true)] {
        assert_eq!(upload_dir(dir.path(), id).exists(), stays, "{}", id.as_str());
    }
    assert!(foreign.exists());
    assert!(store.upload(&app(), &idle).await.unwrap_err().is_not_found());
    drop(held);
    assert_eq!(store.purge_uploads(limit).await.unwrap(), 1);
}

#[tokio::test]
async fn canceled_append_finishes_before_the_next_lease() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilesystemStore::open(dir.path()).unwrap();
    let id = store.start_upload(&app()).await.unwrap();
    let content = bytes::Bytes::from(vec![7; 8 << 20]);
    let mut upload = store.upload(&app(), &id).await.unwrap();
    // Polled once, so that the disk work has begun, and then dropped.
    let chunks = [content.clone()];
    let mut append = Box::pin(upload.append(&chunks));
    assert!(futures::poll!(&mut append).is_pending());
    drop(append);
    drop(upload);
    let mut upload = loop {
        match store.upload(&app(), &id).await {
            Ok(upload) => break upload,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(upload.offset(), content.len() as u64);
    upload.append(&["!".into()]).await.unwrap();
    upload.finish(&Digest::sha256(&[&content[..], b"!"].concat())).await.unwrap();
}
