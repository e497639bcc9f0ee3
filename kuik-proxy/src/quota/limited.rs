//! A store that counts what is written and removed, and has no room for what is too much.
//!
//! Everything that reads passes through as it is.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use kuik_core::{
    content::{
        Blob, BlobSpool, BlobWriter, ByteRange, ContentSource, ContentStore, Descriptor, Digest, Freshness,
        ManagedStore, Manifest, NoteName, Referrers, Served, SourceError, SourceErrorKind, StoredBlob,
        TagList, TagOrDigest, TagPage, Upload, UploadId, Verified,
    },
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
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        self.store.resolve(repository, at, freshness).await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        self.store.manifest(repository, at, freshness).await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        self.store.blob_size(repository, digest).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
        self.store.blob(repository, digest, range).await
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        self.store.tags(repository, page).await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        self.store.referrers(repository, digest, artifact_type).await
    }
}

#[async_trait]
impl<S: ContentStore + Clone> ContentStore for Limited<S> {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        let (writer, store) = (self.store.write_blob().await?, self.store.clone());
        Ok(Box::new(LimitedWriter { writer, store, room: self.usage.room(), usage: self.usage.clone() }))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        self.store.link_blob(repository, digest).await
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        self.store.has_blob(digest).await
    }

    async fn peek_blob(&self, digest: &Digest, bytes: Range<u64>) -> Result<Bytes, SourceError> {
        self.store.peek_blob(digest, bytes).await
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
        self.store.put_manifest(repository, manifest, tag).await?;
        self.usage.kept(manifest.digest(), size, before);
        Ok(())
    }

    async fn check_writable(&self) -> Result<(), SourceError> {
        self.store.check_writable().await
    }
}

#[async_trait]
impl<S: ManagedStore + Clone> ManagedStore for Limited<S> {
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), SourceError> {
        self.store.delete_tag(repository, tag).await
    }

    async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        self.store.delete_manifest(repository, digest).await
    }

    async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        self.store.unlink_blob(repository, digest).await
    }

    async fn start_upload(&self, repository: &RepositoryName) -> Result<UploadId, SourceError> {
        self.store.start_upload(repository).await
    }

    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError> {
        let upload = self.store.upload(repository, id).await?;
        let (store, usage) = (self.store.clone(), self.usage.clone());
        Ok(Box::new(LimitedUpload { upload, id: id.clone(), store, usage }))
    }

    fn repositories(&self) -> BoxStream<'_, Result<RepositoryName, SourceError>> {
        self.store.repositories()
    }

    fn manifests<'a>(&'a self, repository: &'a RepositoryName) -> BoxStream<'a, Result<Digest, SourceError>> {
        self.store.manifests(repository)
    }

    fn linked_blobs<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxStream<'a, Result<Digest, SourceError>> {
        self.store.linked_blobs(repository)
    }

    fn blobs(&self) -> BoxStream<'_, Result<StoredBlob, SourceError>> {
        self.store.blobs()
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

    async fn note(&self, repository: &RepositoryName, name: &NoteName) -> Result<Option<Bytes>, SourceError> {
        self.store.note(repository, name).await
    }

    async fn put_note(
        &self,
        repository: &RepositoryName,
        name: &NoteName,
        text: Option<Bytes>,
    ) -> Result<(), SourceError> {
        self.store.put_note(repository, name, text).await
    }

    fn notes(&self) -> BoxStream<'_, Result<(RepositoryName, NoteName), SourceError>> {
        self.store.notes()
    }

    async fn free_bytes(&self) -> Result<Option<u64>, SourceError> {
        self.store.free_bytes().await
    }
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
        self.writer.publish(verified, repositories).await?;
        self.usage.kept(&digest, size, before);
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

    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        self.usage.extend_upload(&self.id, length(chunks)).await?;
        self.upload.append(chunks).await
    }

    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError> {
        let before = self.store.has_blob(expected).await?;
        let (size, finished) = (self.upload.offset(), self.upload.finish(expected).await);
        match &finished {
            Ok(()) => {
                self.usage.end_upload(&self.id);
                self.usage.kept(expected, size, before);
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
