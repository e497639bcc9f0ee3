//! A store that is cut off in the middle of removing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use kuik_core::{
    content::{
        Blob, BlobWriter, ByteRange, ContentSource, ContentStore, Descriptor, Digest, Freshness,
        ManagedStore, Manifest, NoteName, Referrers, Served, SourceError, SourceErrorKind, StoredBlob,
        TagList, TagOrDigest, TagPage, Upload, UploadId,
    },
    reference::{RepositoryName, Tag},
};

/// A store that removes so much, and then nothing any more.
#[derive(Debug, Clone)]
pub(crate) struct Failing<S> {
    store: S,
    left: Arc<AtomicUsize>,
}

impl<S> Failing<S> {
    pub(crate) fn after(store: S, steps: usize) -> Self {
        Self { store, left: Arc::new(AtomicUsize::new(steps)) }
    }

    fn step(&self) -> Result<(), SourceError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| SourceError::new(SourceErrorKind::Storage, "cut off"))
    }
}

#[async_trait]
impl<S: ContentStore + Clone> ContentSource for Failing<S> {
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
impl<S: ContentStore + Clone> ContentStore for Failing<S> {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        self.store.write_blob().await
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        self.store.link_blob(repository, digest).await
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        self.store.has_blob(digest).await
    }

    async fn peek_blob(&self, digest: &Digest, bytes: std::ops::Range<u64>) -> Result<Bytes, SourceError> {
        self.store.peek_blob(digest, bytes).await
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        self.store.put_manifest(repository, manifest, tag).await
    }

    async fn check_writable(&self) -> Result<(), SourceError> {
        self.store.check_writable().await
    }
}

#[async_trait]
impl<S: ManagedStore + Clone> ManagedStore for Failing<S> {
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), SourceError> {
        self.store.delete_tag(repository, tag).await
    }

    async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        self.step()?;
        self.store.delete_manifest(repository, digest).await
    }

    async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        self.step()?;
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
        self.store.upload(repository, id).await
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
        self.step()?;
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
