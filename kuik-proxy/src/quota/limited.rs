//! A store that counts what is written and removed, and has no room for what is too much.
//!
//! Everything that reads passes through as it is.

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
    forward!(this => &this.store; resolve, manifest, blob_size, blob, tags, referrers);
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
        let upload = self.store.upload(repository, id).await?;
        let (store, usage) = (self.store.clone(), self.usage.clone());
        Ok(Box::new(LimitedUpload { upload, id: id.clone(), store, usage }))
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        let before = self.store.has_blob(digest).await?;
        self.store.remove_blob(digest).await?;
        self.usage.removed(before.unwrap_or(0));
        Ok(())
    }

    async fn quarantine_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        let before = self.store.has_blob(digest).await?;
        self.store.quarantine_blob(digest).await?;
        self.usage.removed(before.unwrap_or(0));
        Ok(())
    }

    forward!(this => &this.store;
        delete_tag, delete_manifest, unlink_blob, start_upload, purge_uploads,
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

#[derive(Debug)]
struct LimitedUpload<S> {
    upload: Box<dyn Upload>,
    id: UploadId,
    store: S,
    usage: Usage,
}

#[async_trait]
impl<S: ContentStore> Upload for LimitedUpload<S> {
    fn offset(&self) -> u64 {
        self.upload.offset()
    }

    fn batch_bytes(&self) -> usize {
        self.upload.batch_bytes()
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        self.usage.extend_upload(&self.id, length(chunks)).await?;
        self.upload.append(chunks).await
    }

    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError> {
        let before = self.store.has_blob(expected).await?;
        let arrival = self.usage.arriving(expected, self.upload.offset(), before);
        let finished = self.upload.finish(expected).await;
        match &finished {
            Ok(()) => {
                self.usage.end_upload(&self.id);
                arrival.succeeded();
            }
            Err(error) if error.kind() == SourceErrorKind::InvalidContent => self.usage.end_upload(&self.id),
            Err(_) => {}
        }
        finished
    }

    async fn cancel(self: Box<Self>) -> Result<(), SourceError> {
        self.upload.cancel().await?;
        self.usage.end_upload(&self.id);
        Ok(())
    }
}

fn length(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}
