//! A store whose disk is full after some bytes, or does not answer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{
        Blob, BlobSpool, BlobWriter, ByteRange, ContentSource, ContentStore, Descriptor, Digest, Freshness,
        Manifest, Referrers, Served, SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage, Verified,
    },
    reference::{RepositoryName, Tag},
    testkit::Gate,
};
use kuik_proxy::store::FilesystemStore;

/// A directory whose disk takes only so many bytes of each blob.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    pub(crate) inner: Arc<FilesystemStore>,
    /// How many bytes of a blob it takes.
    pub(crate) room: u64,
    /// Every write waits for it.
    pub(crate) answers: Gate,
    /// How many writers were asked for.
    pub(crate) writers: AtomicUsize,
}

impl SmallDisk {
    /// One that answers at once.
    pub(crate) fn new(inner: Arc<FilesystemStore>, room: u64) -> Arc<Self> {
        let answers = Gate::new();
        answers.open();
        Arc::new(Self { inner, room, answers, writers: AtomicUsize::new(0) })
    }
}

#[derive(Debug)]
struct SmallWriter {
    inner: Box<dyn BlobWriter>,
    room: u64,
    answers: Gate,
}

#[async_trait]
impl BlobWriter for SmallWriter {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        self.answers.clone().opened().await;
        let length: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        match self.room.checked_sub(length) {
            Some(room) => self.room = room,
            None => return Err(SourceError::new(SourceErrorKind::Storage, "write to a disk that is full")),
        }
        self.inner.append(chunks).await
    }

    fn spool(&self) -> Arc<dyn BlobSpool> {
        self.inner.spool()
    }

    async fn publish(
        self: Box<Self>,
        verified: Verified,
        repositories: &[RepositoryName],
    ) -> Result<(), SourceError> {
        self.inner.publish(verified, repositories).await
    }
}

#[async_trait]
impl ContentStore for SmallDisk {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        self.writers.fetch_add(1, Ordering::SeqCst);
        let inner = self.inner.write_blob().await?;
        Ok(Box::new(SmallWriter { inner, room: self.room, answers: self.answers.clone() }))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        self.inner.link_blob(repository, digest).await
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        self.inner.has_blob(digest).await
    }

    async fn peek_blob(&self, digest: &Digest, bytes: std::ops::Range<u64>) -> Result<Bytes, SourceError> {
        self.inner.peek_blob(digest, bytes).await
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        self.inner.put_manifest(repository, manifest, tag).await
    }

    async fn check_writable(&self) -> Result<(), SourceError> {
        self.inner.check_writable().await
    }
}

#[async_trait]
impl ContentSource for SmallDisk {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        self.inner.resolve(repository, at, freshness).await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        self.inner.manifest(repository, at, freshness).await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        self.inner.blob_size(repository, digest).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
        self.inner.blob(repository, digest, range).await
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        self.inner.tags(repository, page).await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        self.inner.referrers(repository, digest, artifact_type).await
    }
}
