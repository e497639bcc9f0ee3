//! Store with a disk that is full after some bytes, or that hangs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{BlobSpool, BlobWriter, ContentSource, ContentStore, SourceError, SourceErrorKind, Verified},
    forward,
    reference::RepositoryName,
};
use kuik_proxy::store::FilesystemStore;
use kuik_testkit::Gate;

/// A directory whose disk takes a limited number of bytes per blob.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    pub(crate) inner: Arc<FilesystemStore>,
    /// That number of bytes.
    pub(crate) room: u64,
    /// Every write waits for this gate.
    pub(crate) answers: Gate,
    /// Passed after a blob is published, before the result is returned.
    pub(crate) publishes: Gate,
    /// Number of writers requested.
    pub(crate) writers: AtomicUsize,
    /// Number of published blobs.
    pub(crate) published: Arc<AtomicUsize>,
}

impl SmallDisk {
    /// A store that responds at once.
    pub(crate) fn new(inner: Arc<FilesystemStore>, room: u64) -> Arc<Self> {
        Arc::new(Self::of(inner, room))
    }

    /// Like `new`, not yet shared, so that the caller can change its fields.
    pub(crate) fn of(inner: Arc<FilesystemStore>, room: u64) -> Self {
        let [answers, publishes] = [Gate::new(), Gate::new()];
        answers.open();
        publishes.open();
        let (writers, published) = (AtomicUsize::new(0), Arc::default());
        Self { inner, room, answers, publishes, writers, published }
    }
}

#[derive(Debug)]
struct SmallWriter {
    inner: Box<dyn BlobWriter>,
    room: u64,
    answers: Gate,
    publishes: Gate,
    published: Arc<AtomicUsize>,
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
        self.inner.publish(verified, repositories).await?;
        self.published.fetch_add(1, Ordering::SeqCst);
        self.publishes.opened().await;
        Ok(())
    }
}

#[async_trait]
impl ContentStore for SmallDisk {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        self.writers.fetch_add(1, Ordering::SeqCst);
        let inner = self.inner.write_blob().await?;
        let (answers, publishes) = (self.answers.clone(), self.publishes.clone());
        let published = self.published.clone();
        Ok(Box::new(SmallWriter { inner, room: self.room, answers, publishes, published }))
    }

    forward!(this => this.inner.as_ref(); link_blob, has_blob, read_stored, put_manifest, check_writable);
}

#[async_trait]
impl ContentSource for SmallDisk {
    forward!(this => this.inner.as_ref(); resolve, manifest, blob_size, blob, blob_location, tags, referrers);
}
