//! The trait of everything that keeps content.

use std::{fmt, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ContentSource, Digest, Manifest, SourceError, Verified};
use crate::reference::{RepositoryName, Tag};

/// Somewhere that content is kept.
///
/// What a store hands out as a [`ContentSource`] was published whole and verified. Publishing is atomic: after a
/// crash at any instant the old state or the new is visible, never a part.
#[async_trait]
pub trait ContentStore: ContentSource {
    /// Starts to write a blob. Nothing is visible until it is published; dropping the writer gives its space back.
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError>;

    /// Makes a blob that the store has readable in `repository`.
    ///
    /// # Errors
    /// `NotFound` where the store does not have it.
    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError>;

    /// Whether the store has the blob in any repository, and its size.
    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError>;

    /// A few bytes of a blob, whichever repository has it: to compare, not to serve.
    async fn peek_blob(&self, digest: &Digest, bytes: Range<u64>) -> Result<Bytes, SourceError>;

    /// Keeps a manifest in `repository`, and points `tag` at it where one is given.
    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError>;

    /// Whether the store can be written to now; the error says why not.
    async fn check_writable(&self) -> Result<(), SourceError>;
}

/// A blob that is being written.
#[async_trait]
pub trait BlobWriter: fmt::Debug + Send + 'static {
    /// Writes the next bytes, in order.
    ///
    /// # Errors
    /// `Storage` where they cannot be kept, for example on a full disk: what was written before stays readable
    /// through [`BlobWriter::spool`].
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError>;

    /// A reader of what has been written so far, which works while writing goes on and after publishing.
    fn spool(&self) -> std::sync::Arc<dyn BlobSpool>;

    /// Makes the blob durable and visible in `repositories`.
    ///
    /// # Errors
    /// `Storage`, also where the witness is for another number of bytes than were written.
    async fn publish(
        self: Box<Self>,
        verified: Verified,
        repositories: &[RepositoryName],
    ) -> Result<(), SourceError>;
}

/// Reads what a [`BlobWriter`] has written.
#[async_trait]
pub trait BlobSpool: fmt::Debug + Send + Sync + 'static {
    /// Some of the bytes from `start` on: at least one, at most up to `end`. The caller asks only for bytes that
    /// were written.
    async fn read(&self, start: u64, end: u64) -> Result<Bytes, SourceError>;
}
