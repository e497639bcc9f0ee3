//! Content store trait.

use std::{fmt, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ContentSource, Digest, Manifest, SourceError, Verified};
use crate::reference::{RepositoryName, Tag};

/// Stores content.
///
/// Content that a store returns as a [`ContentSource`] was published whole and verified. Publishing is atomic: after a
/// crash at any instant either the old or the new state is visible, never a partial one.
#[async_trait]
pub trait ContentStore: ContentSource {
    /// Starts to write a blob. Nothing is visible until it is published; dropping the writer frees its space.
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError>;

    /// Links a stored blob into `repository`, which makes it readable there.
    ///
    /// # Errors
    /// Returns `NotFound` if the store does not have the blob.
    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError>;

    /// Returns the size of the blob, if the store has it in any repository.
    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError>;

    /// Reads some bytes of a blob, regardless of repository: to compare, not to serve.
    async fn read_stored(&self, digest: &Digest, bytes: Range<u64>) -> Result<Bytes, SourceError>;

    /// Stores a manifest in `repository`, and points `tag` at it if given.
    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError>;

    /// Checks that the store is writable; the error has the reason if it is not.
    async fn check_writable(&self) -> Result<(), SourceError>;
}

/// A blob that is being written.
#[async_trait]
pub trait BlobWriter: fmt::Debug + Send + 'static {
    /// Writes the next bytes, in order.
    ///
    /// # Errors
    /// Returns `Storage` if the bytes cannot be stored, for example on a full disk: earlier bytes stay readable through
    /// [`BlobWriter::spool`].
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError>;

    /// Returns a reader of the bytes written so far, usable during writing and after publishing.
    fn spool(&self) -> std::sync::Arc<dyn BlobSpool>;

    /// Makes the blob durable and visible in `repositories`.
    ///
    /// # Errors
    /// Returns `Storage` if the store fails, or if the witness is for a different number of bytes than were written.
    async fn publish(
        self: Box<Self>,
        verified: Verified,
        repositories: &[RepositoryName],
    ) -> Result<(), SourceError>;
}

/// Reads the bytes that a [`BlobWriter`] has written.
#[async_trait]
pub trait BlobSpool: fmt::Debug + Send + Sync + 'static {
    /// Reads bytes from `start`: at least one, at most up to `end`. The caller requests only bytes that were written.
    async fn read(&self, start: u64, end: u64) -> Result<Bytes, SourceError>;
}
