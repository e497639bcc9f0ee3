//! What uploads hold, whatever becomes of them.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use kuik_core::testkit::MemoryStore;

use super::*;
use crate::quota::QuotaMetrics;

/// A store whose uploads keep nothing more, and say that they could not be removed although they were.
#[derive(Debug, Clone)]
struct Broken(MemoryStore);

#[derive(Debug)]
struct BrokenUpload(Box<dyn Upload>);

fn broken() -> SourceError {
    SourceError::new(SourceErrorKind::Storage, "broken")
}

#[async_trait]
impl ContentSource for Broken {
    forward!(this => &this.0; resolve, manifest, blob_size, blob, tags, referrers);
}

#[async_trait]
impl ContentStore for Broken {
    forward!(this => &this.0; write_blob, link_blob, has_blob, peek_blob, put_manifest, check_writable);
}

#[async_trait]
impl ManagedStore for Broken {
    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError> {
        Ok(Box::new(BrokenUpload(self.0.upload(repository, id).await?)))
    }

    forward!(this => &this.0;
        delete_tag, delete_manifest, unlink_blob, start_upload, purge_uploads, repositories, manifests,
        linked_blobs, blobs, remove_blob, quarantine_blob, note, put_note, notes, free_bytes);
}

#[async_trait]
impl Upload for BrokenUpload {
    fn offset(&self) -> u64 {
        self.0.offset()
    }

    async fn append(&mut self, _: &[Bytes]) -> Result<(), SourceError> {
        Err(broken())
    }

    async fn finish(self: Box<Self>, _: &Digest) -> Result<(), SourceError> {
        Err(broken())
    }

    async fn cancel(self: Box<Self>) -> Result<(), SourceError> {
        self.0.cancel().await?;
        Err(broken())
    }
}

fn app() -> RepositoryName {
    RepositoryName::local("app").unwrap()
}

fn bytes(length: usize) -> [Bytes; 1] {
    [vec![7; length].into()]
}

/// A store that may keep 100 bytes, as a process finds it that has just started.
fn limited<S: ManagedStore + Clone>(store: S) -> Limited<S> {
    Limited::new(store, Usage::new(Some(100), QuotaMetrics::default()))
}

/// Whether there is room for so many bytes, and for no more.
async fn has_room_for<S>(limited: &Limited<S>, bytes: u64) -> bool {
    let usage = &limited.usage;
    usage.room().extend(bytes).await.is_ok() && usage.room().extend(bytes + 1).await.is_err()
}

#[tokio::test]
async fn a_purged_upload_gives_its_room_back() {
    let limited = limited(MemoryStore::new());
    let (purged, kept) =
        (limited.start_upload(&app()).await.unwrap(), limited.start_upload(&app()).await.unwrap());
    limited.upload(&app(), &purged).await.unwrap().append(&bytes(60)).await.unwrap();
    let mut going_on = limited.upload(&app(), &kept).await.unwrap();
    going_on.append(&bytes(30)).await.unwrap();
    assert_eq!(limited.purge_uploads(SystemTime::UNIX_EPOCH).await.unwrap(), 0);
    assert!(has_room_for(&limited, 10).await);
    let hence = SystemTime::now() + Duration::from_secs(3600);
    assert_eq!(limited.purge_uploads(hence).await.unwrap(), 1);
    assert!(has_room_for(&limited, 70).await, "the one that goes on keeps its room");
}

#[tokio::test]
async fn an_upload_that_is_older_than_the_process_counts_once_it_is_opened() {
    let store = MemoryStore::new();
    let before = limited(store.clone());
    let id = before.start_upload(&app()).await.unwrap();
    before.upload(&app(), &id).await.unwrap().append(&bytes(60)).await.unwrap();
    let after = limited(store);
    let mut upload = after.upload(&app(), &id).await.unwrap();
    assert!(upload.append(&bytes(60)).await.is_err());
    assert!(has_room_for(&after, 40).await);
    let elsewhere = RepositoryName::local("other").unwrap();
    assert!(after.upload(&elsewhere, &id).await.is_err());
    assert!(has_room_for(&after, 40).await, "that another repository does not have it says nothing");
    upload.append(&bytes(40)).await.unwrap();
    upload.finish(&Digest::sha256(&[7; 100])).await.unwrap();
    assert_eq!(after.usage.bytes(), 100);
    assert!(has_room_for(&after, 0).await);
}

#[tokio::test]
async fn what_could_not_be_written_or_removed_is_counted_as_it_is() {
    let store = MemoryStore::new();
    let id = store.start_upload(&app()).await.unwrap();
    store.upload(&app(), &id).await.unwrap().append(&bytes(50)).await.unwrap();
    let limited = limited(Broken(store));
    let mut upload = limited.upload(&app(), &id).await.unwrap();
    assert!(upload.append(&bytes(20)).await.is_err());
    assert!(has_room_for(&limited, 50).await, "what was not written takes no room");
    assert!(upload.finish(&Digest::sha256(b"")).await.is_err());
    assert!(has_room_for(&limited, 50).await, "it is still there");
    assert!(limited.upload(&app(), &id).await.unwrap().cancel().await.is_err());
    assert!(has_room_for(&limited, 100).await, "it is gone, whatever was said");
}
