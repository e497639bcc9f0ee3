//! A store whose writers the collector knows of.
//!
//! Every write leases what it names while it goes on, and so does every question whether a blob is there: whoever
//! asked that may be about to name it. Reads of content pass through as they are.

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

use super::Leases;

/// A store `S` that is collected while it is used.
#[derive(Debug, Clone)]
pub struct Leased<S> {
    store: S,
    leases: Leases,
}

impl<S> Leased<S> {
    /// `store`, used under `leases`, which its [`Collector`](super::Collector) has too.
    pub fn new(store: S, leases: Leases) -> Self {
        Self { store, leases }
    }
}

#[async_trait]
impl<S: ContentStore + Clone> ContentSource for Leased<S> {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        let digest = if let TagOrDigest::Digest(digest) = at { Some(digest) } else { None };
        let _lease = self.leases.lease(digest).await;
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
        let _lease = self.leases.lease([digest]).await;
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
impl<S: ContentStore + Clone> ContentStore for Leased<S> {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        let (writer, leases) = (self.store.write_blob().await?, self.leases.clone());
        Ok(Box::new(LeasedWriter { writer, leases }))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let _lease = self.leases.lease([digest]).await;
        self.store.link_blob(repository, digest).await
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        let _lease = self.leases.lease([digest]).await;
        self.store.has_blob(digest).await
    }

    async fn peek_blob(&self, digest: &Digest, bytes: Range<u64>) -> Result<Bytes, SourceError> {
        let _lease = self.leases.lease([digest]).await;
        self.store.peek_blob(digest, bytes).await
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let lease = self.leases.lease_manifest(manifest).await;
        let (store, repository, manifest) = (self.store.clone(), repository.clone(), manifest.clone());
        let tag = tag.cloned();
        // Disk work goes on when its caller leaves, and the lease has to outlast it.
        let put = tokio::spawn(async move {
            let _lease = lease;
            store.put_manifest(&repository, &manifest, tag.as_ref()).await
        });
        put.await.unwrap_or_else(|error| {
            let attempted = "keep a manifest: its task ended early";
            Err(SourceError::caused_by(SourceErrorKind::Storage, attempted, error))
        })
    }

    async fn check_writable(&self) -> Result<(), SourceError> {
        self.store.check_writable().await
    }
}

#[async_trait]
impl<S: ManagedStore + Clone> ManagedStore for Leased<S> {
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
        let (upload, leases) = (self.store.upload(repository, id).await?, self.leases.clone());
        Ok(Box::new(LeasedUpload { upload, leases }))
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
        self.store.remove_blob(digest).await
    }

    async fn quarantine_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        self.store.quarantine_blob(digest).await
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
struct LeasedWriter {
    writer: Box<dyn BlobWriter>,
    leases: Leases,
}

#[async_trait]
impl BlobWriter for LeasedWriter {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
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
        let _lease = self.leases.lease([verified.digest()]).await;
        self.writer.publish(verified, repositories).await
    }
}

#[derive(Debug)]
struct LeasedUpload {
    upload: Box<dyn Upload>,
    leases: Leases,
}

#[async_trait]
impl Upload for LeasedUpload {
    fn offset(&self) -> u64 {
        self.upload.offset()
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        self.upload.append(chunks).await
    }

    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError> {
        let _lease = self.leases.lease([expected]).await;
        self.upload.finish(expected).await
    }

    async fn cancel(self: Box<Self>) -> Result<(), SourceError> {
        self.upload.cancel().await
    }
}
