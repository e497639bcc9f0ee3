//! Store decorator that enforces a size limit.
//!
//! Reads pass through unchanged. The size of an upload is read from the store whenever it is opened, after any
//! failure, and after uploads were purged.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{
        BlobSpool, BlobWriter, ContentSource, ContentStore, Digest, Manifest, RegistryStore, SourceError,
        SourceErrorKind, Upload, UploadId, Verified,
    },
    forward,
    reference::{RepositoryName, Tag},
};

use super::usage::{Reservation, Usage};

/// Store `S` whose size is counted and bounded. All writers and removers use it, the
/// [`Collector`](crate::maintenance::gc::Collector) included.
#[derive(Debug, Clone)]
pub struct QuotaStore<S> {
    store: S,
    usage: Usage,
}

impl<S> QuotaStore<S> {
    /// Wraps `store`, counted and bounded by `usage`.
    pub fn new(store: S, usage: Usage) -> Self {
        Self { store, usage }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ContentStore + Clone> ContentSource for QuotaStore<S> {
    forward!(this => &this.store; resolve, manifest, blob_size, blob, blob_location, tags, referrers,
        report_corrupt);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ContentStore + Clone> ContentStore for QuotaStore<S> {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        let (writer, store) = (self.store.write_blob().await?, self.store.clone());
        Ok(Box::new(QuotaWriter { writer, store, room: self.usage.reserve(), usage: self.usage.clone() }))
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let size = manifest.bytes().len() as u64;
        let mut room = self.usage.reserve();
        room.extend(size).await?;
        let before = self.store.has_blob(manifest.digest()).await?;
        let arrival = self.usage.arriving(manifest.digest(), size, before);
        self.store.put_manifest(repository, manifest, tag).await?;
        arrival.succeeded();
        Ok(())
    }

    forward!(this => &this.store; link_blob, has_blob, read_stored, check_writable);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: RegistryStore + Clone> RegistryStore for QuotaStore<S> {
    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError> {
        let _opening = self.usage.opening().await;
        let upload = open(&self.store, &self.usage, repository, id).await?;
        let (repository, id, quota) = (repository.clone(), id.clone(), self.clone());
        Ok(Box::new(QuotaUpload { upload, repository, id, quota }))
    }

    async fn purge_uploads(&self, idle_since: SystemTime) -> Result<u64, SourceError> {
        let purged = self.store.purge_uploads(idle_since).await;
        // The store does not report which ones; another process may also have ended some.
        for (repository, id) in self.usage.uploads() {
            self.refresh(&repository, &id).await;
        }
        purged
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        let before = self.store.has_blob(digest).await?;
        self.store.remove_blob(digest).await?;
        self.usage.removed(digest, before.unwrap_or(0));
        Ok(())
    }

    async fn quarantine_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        let before = self.store.has_blob(digest).await?;
        self.store.quarantine_blob(digest).await?;
        self.usage.removed(digest, before.unwrap_or(0));
        Ok(())
    }

    forward!(this => &this.store;
        delete_tag, delete_manifest, unlink_blob, start_upload,
        repositories, manifests, linked_blobs, blobs, metadata, put_metadata, all_metadata, free_bytes);
}

#[derive(Debug)]
struct QuotaWriter<S> {
    writer: Box<dyn BlobWriter>,
    store: S,
    room: Reservation,
    usage: Usage,
}

#[async_trait]
impl<S: ContentStore> BlobWriter for QuotaWriter<S> {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        self.room.extend(length(chunks)).await?;
        self.writer.append(chunks).await
    }

    fn spool(&self) -> std::sync::Arc<dyn BlobSpool> {
        self.writer.spool()
    }

    async fn publish(
        self: Box<Self>,
        verified: Verified,
        repositories: &[RepositoryName],
    ) -> Result<(), SourceError> {
        let before = self.store.has_blob(verified.digest()).await?;
        let (digest, size) = (verified.digest().clone(), verified.size());
        let arrival = self.usage.arriving(&digest, size, before);
        self.writer.publish(verified, repositories).await?;
        arrival.succeeded();
        self.usage.fetched(&digest);
        Ok(())
    }
}

impl<S: RegistryStore + Clone> QuotaStore<S> {
    /// Reads the current size of an upload that no client has open. If that fails, the previous size is assumed.
    async fn refresh(&self, repository: &RepositoryName, id: &UploadId) {
        let _looking = self.usage.looking().await;
        let looked = open(&self.store, &self.usage, repository, id).await;
        if let Err(error) = looked.map(drop)
            && !(error.is_not_found() || error.kind() == SourceErrorKind::Unavailable)
        {
            tracing::warn!(
                error = error.chain(),
                "cannot read the size of an upload, assuming it is unchanged"
            );
        }
    }
}

/// Opens an upload and counts its size: zero if it is gone.
async fn open<S: RegistryStore>(
    store: &S,
    usage: &Usage,
    repository: &RepositoryName,
    id: &UploadId,
) -> Result<Box<dyn Upload>, SourceError> {
    let opened = store.upload(repository, id).await;
    match &opened {
        Ok(upload) => usage.upload_holds(repository, id, upload.offset()),
        Err(error) if error.is_not_found() => usage.upload_is_absent(repository, id),
        Err(_) => {}
    }
    opened
}

#[derive(Debug)]
struct QuotaUpload<S> {
    upload: Box<dyn Upload>,
    repository: RepositoryName,
    id: UploadId,
    quota: QuotaStore<S>,
}

#[async_trait]
impl<S: RegistryStore + Clone> Upload for QuotaUpload<S> {
    fn offset(&self) -> u64 {
        self.upload.offset()
    }

    fn batch_bytes(&self) -> usize {
        self.upload.batch_bytes()
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        let (usage, bytes) = (&self.quota.usage, length(chunks));
        usage.extend_upload(&self.repository, &self.id, bytes).await?;
        let appended = self.upload.append(chunks).await;
        if appended.is_err() {
            usage.shrink_upload(&self.id, bytes);
        }
        appended
    }

    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError> {
        let Self { upload, repository, id, quota } = *self;
        let before = quota.store.has_blob(expected).await?;
        let arrival = quota.usage.arriving(expected, upload.offset(), before);
        let finished = upload.finish(expected).await;
        match &finished {
            Ok(()) => {
                quota.usage.end_upload(&id);
                arrival.succeeded();
            }
            Err(error) if error.kind() == SourceErrorKind::InvalidContent => quota.usage.end_upload(&id),
            Err(_) => quota.refresh(&repository, &id).await,
        }
        finished
    }

    async fn cancel(self: Box<Self>) -> Result<(), SourceError> {
        let Self { upload, repository, id, quota } = *self;
        let canceled = upload.cancel().await;
        match &canceled {
            Ok(()) => quota.usage.end_upload(&id),
            // Some of it may be gone.
            Err(_) => quota.refresh(&repository, &id).await,
        }
        canceled
    }
}

fn length(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

#[cfg(test)]
#[path = "quota_store_tests.rs"]
mod tests;
