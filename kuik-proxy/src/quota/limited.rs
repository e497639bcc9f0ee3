//! A store that counts what is written and removed, and has no room for what is too much.
//!
//! Everything that reads passes through as it is. What an upload holds is asked of the store itself whenever an upload
//! is opened, whenever something about it failed, and when uploads were purged.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{
        BlobSpool, BlobWriter, ContentSource, ContentStore, Digest, ManagedStore, Manifest, SourceError,
        SourceErrorKind, Upload, UploadId, Verified,
    },
    forward,
    reference::{RepositoryName, Tag},
};

use super::usage::{Room, Usage};

/// A store `S` whose size is counted, and bounded. All that writes to the store or removes from it does so through
/// this: its [`Collector`](crate::gc::Collector) too.
#[derive(Debug, Clone)]
pub struct Limited<S> {
    store: S,
    usage: Usage,
}

impl<S> Limited<S> {
    /// `store`, counted and bounded by `usage`.
    pub fn new(store: S, usage: Usage) -> Self {
        Self { store, usage }
    }
}

#[async_trait]
impl<S: ContentStore + Clone> ContentSource for Limited<S> {
    forward!(this => &this.store; resolve, manifest, blob_size, blob, blob_location, tags, referrers);
}

#[async_trait]
impl<S: ContentStore + Clone> ContentStore for Limited<S> {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        let (writer, store) = (self.store.write_blob().await?, self.store.clone());
        Ok(Box::new(LimitedWriter { writer, store, room: self.usage.room(), usage: self.usage.clone() }))
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let size = manifest.bytes().len() as u64;
        let mut room = self.usage.room();
        room.extend(size).await?;
        let before = self.store.has_blob(manifest.digest()).await?;
        let arrival = self.usage.arriving(manifest.digest(), size, before);
        self.store.put_manifest(repository, manifest, tag).await?;
        arrival.succeeded();
        Ok(())
    }

    forward!(this => &this.store; link_blob, has_blob, peek_blob, check_writable);
}

#[async_trait]
impl<S: ManagedStore + Clone> ManagedStore for Limited<S> {
    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError> {
        let _opening = self.usage.opening().await;
        let upload = open(&self.store, &self.usage, repository, id).await?;
        let (repository, id, limited) = (repository.clone(), id.clone(), self.clone());
        Ok(Box::new(LimitedUpload { upload, repository, id, limited }))
    }

    async fn purge_uploads(&self, idle_since: SystemTime) -> Result<u64, SourceError> {
        let purged = self.store.purge_uploads(idle_since).await;
        // The store does not say which they were; and another process may have ended some.
        for (repository, id) in self.usage.uploads() {
            self.look_at(&repository, &id).await;
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
        repositories, manifests, linked_blobs, blobs, note, put_note, notes, free_bytes);
}

#[derive(Debug)]
struct LimitedWriter<S> {
    writer: Box<dyn BlobWriter>,
    store: S,
    room: Room,
    usage: Usage,
}

#[async_trait]
impl<S: ContentStore> BlobWriter for LimitedWriter<S> {
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

impl<S: ManagedStore + Clone> Limited<S> {
    /// Sees what an upload holds now that nobody here has it. Where that cannot be seen it is believed to hold what it
    /// did.
    async fn look_at(&self, repository: &RepositoryName, id: &UploadId) {
        let _looking = self.usage.looking().await;
        let looked = open(&self.store, &self.usage, repository, id).await;
        if let Err(error) = looked.map(drop)
            && !(error.is_not_found() || error.kind() == SourceErrorKind::Unavailable)
        {
            tracing::warn!(error = error.chain(), "how much an upload holds cannot be seen");
        }
    }
}

/// Opens an upload, and counts what it holds: nothing where it is gone.
async fn open<S: ManagedStore>(
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
struct LimitedUpload<S> {
    upload: Box<dyn Upload>,
    repository: RepositoryName,
    id: UploadId,
    limited: Limited<S>,
}

#[async_trait]
impl<S: ManagedStore + Clone> Upload for LimitedUpload<S> {
    fn offset(&self) -> u64 {
        self.upload.offset()
    }

    fn batch_bytes(&self) -> usize {
        self.upload.batch_bytes()
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        let (usage, bytes) = (&self.limited.usage, length(chunks));
        usage.extend_upload(&self.repository, &self.id, bytes).await?;
        let appended = self.upload.append(chunks).await;
        if appended.is_err() {
            usage.shrink_upload(&self.id, bytes);
        }
        appended
    }

    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError> {
        let Self { upload, repository, id, limited } = *self;
        let before = limited.store.has_blob(expected).await?;
        let arrival = limited.usage.arriving(expected, upload.offset(), before);
        let finished = upload.finish(expected).await;
        match &finished {
            Ok(()) => {
                limited.usage.end_upload(&id);
                arrival.succeeded();
            }
            Err(error) if error.kind() == SourceErrorKind::InvalidContent => limited.usage.end_upload(&id),
            Err(_) => limited.look_at(&repository, &id).await,
        }
        finished
    }

    async fn cancel(self: Box<Self>) -> Result<(), SourceError> {
        let Self { upload, repository, id, limited } = *self;
        let cancelled = upload.cancel().await;
        match &cancelled {
            Ok(()) => limited.usage.end_upload(&id),
            // Some of it may be gone.
            Err(_) => limited.look_at(&repository, &id).await,
        }
        cancelled
    }
}

fn length(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

#[cfg(test)]
#[path = "limited_tests.rs"]
mod tests;
