//! The trait of a store that is a registry of its own: uploads, deletes, and a walk over all it holds.
//!
//! A pull-through cache needs a [`ContentStore`] alone. Pushing needs uploads that survive a lost connection, and
//! garbage collection needs to see everything: that is this trait.

use std::{fmt, str::FromStr, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::{ContentStore, Digest, NoteName, SourceError};
use crate::reference::{RepositoryName, Tag};

/// A [`ContentStore`] that can be pushed to, deleted from, and walked.
#[async_trait]
pub trait ManagedStore: ContentStore {
    /// Removes a tag, and nothing else: what it pointed at stays, and so does every other tag on it.
    ///
    /// # Errors
    /// `NotFound` where there is no such tag.
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), SourceError>;

    /// Removes a manifest from `repository`, with the tags that point at it there. Its bytes are collected later.
    ///
    /// # Errors
    /// `NotFound` where the repository has no such manifest.
    async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError>;

    /// Removes a blob from `repository`. Its bytes are collected later.
    ///
    /// # Errors
    /// `NotFound` where the repository has no such blob.
    async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError>;

    /// Begins an upload into `repository`. It survives a restart of the process.
    async fn start_upload(&self, repository: &RepositoryName) -> Result<UploadId, SourceError>;

    /// An upload that was begun, to go on with it. One at a time: whoever has it, has it alone.
    ///
    /// # Errors
    /// `NotFound` where there is no such upload in this repository; `Unavailable` where somebody else has it.
    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError>;

    /// Ends the uploads that nobody has and that nothing was appended to since `idle_since`; returns how many.
    async fn purge_uploads(&self, idle_since: SystemTime) -> Result<u64, SourceError>;

    /// Every repository that has a manifest, a blob or an upload, in no particular order and under the path that it
    /// is kept by ([`RepositoryName::local`] of [`RepositoryName::encoded`]), which names it to this store just as
    /// well.
    ///
    /// What comes or goes during a walk may be in it or not; what was there all the time is. So for the other walks.
    fn repositories(&self) -> BoxStream<'_, Result<RepositoryName, SourceError>>;

    /// Every manifest of `repository`.
    fn manifests<'a>(&'a self, repository: &'a RepositoryName) -> BoxStream<'a, Result<Digest, SourceError>>;

    /// Every blob that is linked into `repository`, whether its bytes are kept or not.
    fn linked_blobs<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxStream<'a, Result<Digest, SourceError>>;

    /// Everything whose bytes are kept, manifests too, whether anything refers to it or not.
    fn blobs(&self) -> BoxStream<'_, Result<StoredBlob, SourceError>>;

    /// Removes the bytes of a blob or manifest. For garbage collection, which knows that nothing refers to them.
    async fn remove_blob(&self, digest: &Digest) -> Result<(), SourceError>;

    /// Sets the bytes of a damaged blob or manifest aside, where an operator can look at them. For everybody else
    /// they are gone, as after [`ManagedStore::remove_blob`], and may be published again. A few specimens are kept;
    /// the oldest make room.
    ///
    /// # Errors
    /// `NotFound` where the store has no such bytes.
    async fn quarantine_blob(&self, digest: &Digest) -> Result<(), SourceError>;

    /// A note about `repository`, which need not exist otherwise; `None` where there is none.
    async fn note(&self, repository: &RepositoryName, name: &NoteName) -> Result<Option<Bytes>, SourceError>;

    /// Keeps a note of at most [`MAX_NOTE_BYTES`](super::MAX_NOTE_BYTES) in place of the one before; `None` removes
    /// it.
    ///
    /// # Errors
    /// `Unsupported` where it is too large.
    async fn put_note(
        &self,
        repository: &RepositoryName,
        name: &NoteName,
        text: Option<Bytes>,
    ) -> Result<(), SourceError>;

    /// Every note, in no particular order; repositories are named as by [`ManagedStore::repositories`].
    fn notes(&self) -> BoxStream<'_, Result<(RepositoryName, NoteName), SourceError>>;

    /// How many bytes the store can still take; `None` where nobody can know that, as of a bucket.
    async fn free_bytes(&self) -> Result<Option<u64>, SourceError>;
}

/// Bytes that a store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlob {
    /// Their digest.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// When they were last written.
    pub modified: SystemTime,
}

/// An upload that goes on. Dropping it keeps what was acknowledged: the next one goes on from there.
#[async_trait]
pub trait Upload: fmt::Debug + Send + 'static {
    /// How many bytes have been acknowledged.
    fn offset(&self) -> u64;

    /// How many bytes are best appended at once, where so many have come: what is kept piece by piece wants large
    /// pieces. Whoever appends has as many in memory.
    fn batch_bytes(&self) -> usize {
        256 << 10
    }

    /// Keeps the next bytes; they are acknowledged when this returns.
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError>;

    /// Publishes what was uploaded as the blob `expected` of its repository, and ends the upload.
    ///
    /// # Errors
    /// `InvalidContent` where the digest differs: the upload is then gone, and nothing was published.
    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError>;

    /// Ends the upload, and gives its space back.
    async fn cancel(self: Box<Self>) -> Result<(), SourceError>;
}

/// The name of an upload: a UUID, as Docker's registry names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(String);

/// A text that is no [`UploadId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an upload: it is 8-4-4-4-12 lower-case hex digits")]
pub struct InvalidUploadId;

impl UploadId {
    /// An id of 16 random bytes (RFC 9562, version 4). The bytes come from the caller: this crate has no source of
    /// randomness.
    #[must_use]
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
        *version = (*version & 0x0f) | 0x40;
        *variant = (*variant & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UploadId {
    type Err = InvalidUploadId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidUploadId) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids() {
        let id = UploadId::from_random([0xff; 16]);
        assert_eq!(id.as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(id.as_str().parse(), Ok(id));
        for text in [
            "",
            "../../etc/passwd",
            "ffffffff-ffff-4fff-bfff-fffffffffffF",
            "ffffffffffff4fffbfffffffffffffff",
        ] {
            assert_eq!(text.parse::<UploadId>(), Err(InvalidUploadId), "{text}");
        }
    }
}
