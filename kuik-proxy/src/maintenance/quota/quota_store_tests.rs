//! Sizes of uploads in the quota, however they end.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use kuik_testkit::MemoryStore;

use super::*;
use crate::maintenance::quota::QuotaMetrics;

/// A store whose uploads accept nothing more, and whose cancellation removes them but reports an error.
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
    forward!(this => &this.0; write_blob, link_blob, has_blob, read_stored, put_manifest, check_writable);
}

#[async_trait]
impl RegistryStore for Broken {
    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError> {
        Ok(Box::new(BrokenUpload(self.0.upload(repository, id).await?)))
    }

    forward!(this => &this.0;
        delete_tag, delete_manifest, unlink_blob, start_upload, purge_uploads, repositories, manifests,
        linked_blobs, blobs, remove_blob, quarantine_blob, metadata, put_metadata, all_metadata, free_bytes);
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

/// A store with a limit of 100 bytes, as in a process that has just started.
fn quota<S: RegistryStore + Clone>(store: S) -> QuotaStore<S> {
    QuotaStore::new(store, Usage::new(Some(100), QuotaMetrics::default()))
}

/// Returns whether exactly this many bytes are free.
async fn has_room_for<S>(quota: &QuotaStore<S>, bytes: u64) -> bool {
    let usage = &quota.usage;
    usage.reserve().extend(bytes).await.is_ok() && usage.reserve().extend(bytes + 1).await.is_err()
}

#[tokio::test]
async fn purged_upload_frees_its_space() {
    let quota = quota(MemoryStore::new());
    let (purged, kept) =
        (quota.start_upload(&app()).await.unwrap(), quota.start_upload(&app()).await.unwrap());
    quota.upload(&app(), &purged).await.unwrap().append(&bytes(60)).await.unwrap();
    let mut active = quota.upload(&app(), &kept).await.unwrap();
    active.append(&bytes(30)).await.unwrap();
    assert_eq!(quota.purge_uploads(SystemTime::UNIX_EPOCH).await.unwrap(), 0);
    assert!(has_room_for(&quota, 10).await);
    let hence = SystemTime::now() + Duration::from_secs(3600);
    assert_eq!(quota.purge_uploads(hence).await.unwrap(), 1);
    assert!(has_room_for(&quota, 70).await, "the active upload keeps its space");
}

#[tokio::test]
async fn upload_from_before_a_restart_counts_when_opened() {
    let store = MemoryStore::new();
    let before = quota(store.clone());
    let id = before.start_upload(&app()).await.unwrap();
    before.upload(&app(), &id).await.unwrap().append(&bytes(60)).await.unwrap();
    let after = quota(store);
    let mut upload = after.upload(&app(), &id).await.unwrap();
    assert!(upload.append(&bytes(60)).await.is_err());
    assert!(has_room_for(&after, 40).await);
    let elsewhere = RepositoryName::local("other").unwrap();
    assert!(after.upload(&elsewhere, &id).await.is_err());
    assert!(has_room_for(&after, 40).await, "its absence in another repository changes nothing");
    upload.append(&bytes(40)).await.unwrap();
    upload.finish(&Digest::sha256(&[7; 100])).await.unwrap();
    assert_eq!(after.usage.bytes(), 100);
    assert!(has_room_for(&after, 0).await);
}

#[tokio::test]
async fn failed_upload_operations_are_recounted() {
    let store = MemoryStore::new();
    let id = store.start_upload(&app()).await.unwrap();
    store.upload(&app(), &id).await.unwrap().append(&bytes(50)).await.unwrap();
    let quota = quota(Broken(store));
    let mut upload = quota.upload(&app(), &id).await.unwrap();
    assert!(upload.append(&bytes(20)).await.is_err());
    assert!(has_room_for(&quota, 50).await, "unwritten bytes take no space");
    assert!(upload.finish(&Digest::sha256(b"")).await.is_err());
    assert!(has_room_for(&quota, 50).await, "it still exists");
    assert!(quota.upload(&app(), &id).await.unwrap().cancel().await.is_err());
    assert!(has_room_for(&quota, 100).await, "it is gone despite the error");
}
