//! Store trait of a full registry: resumable uploads, deletes and enumeration.
//!
//! A pull-through cache needs only a [`ContentStore`]. Push needs uploads that survive a lost connection, and garbage
//! collection needs to enumerate everything: this trait adds both.

use std::{fmt, str::FromStr, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::{ContentStore, Digest, MetadataName, SourceError};
use crate::reference::{RepositoryName, Tag};

/// A [`ContentStore`] that supports push, delete and enumeration.
#[async_trait]
pub trait RegistryStore: ContentStore {
    /// Removes a tag only: its manifest and every other tag of that manifest stay.
    ///
    /// # Errors
    /// Returns `NotFound` if the tag does not exist.
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), SourceError>;

    /// Removes a manifest from `repository`, with the tags that point to it there. Garbage collection removes its bytes
    /// later.
    ///
    /// # Errors
    /// Returns `NotFound` if the repository has no such manifest.
    async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError>;

    /// Removes a blob from `repository`. Garbage collection removes its bytes later.
    ///
    /// # Errors
    /// Returns `NotFound` if the repository has no such blob.
    async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError>;

    /// Starts an upload into `repository`. It survives a restart of the process.
    async fn start_upload(&self, repository: &RepositoryName) -> Result<UploadId, SourceError>;

    /// Opens a started upload for exclusive use, to resume it.
    ///
    /// # Errors
    /// Returns `NotFound` if the repository has no such upload, `Unavailable` if it is already open.
    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError>;

    /// Deletes uploads that are not open and received no data since `idle_since`; returns their number.
    async fn purge_uploads(&self, idle_since: SystemTime) -> Result<u64, SourceError>;

    /// Lists every repository that has a manifest, a blob or an upload, in no particular order and under its storage
    /// path ([`RepositoryName::local`] of [`RepositoryName::encoded`]), which this store accepts as its name too.
    ///
    /// An entry that is added or removed during the enumeration may be listed or not; every other entry is listed. The
    /// other enumerations give the same guarantee.
    fn repositories(&self) -> BoxStream<'_, Result<RepositoryName, SourceError>>;

    /// Lists the manifests of `repository`.
    fn manifests<'a>(&'a self, repository: &'a RepositoryName) -> BoxStream<'a, Result<Digest, SourceError>>;

    /// Lists the blobs linked into `repository`, whether the store has their bytes or not.
    fn linked_blobs<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxStream<'a, Result<Digest, SourceError>>;

    /// Lists all stored blobs and manifests, referenced or not.
    fn blobs(&self) -> BoxStream<'_, Result<StoredBlob, SourceError>>;

    /// Removes the bytes of a blob or manifest. For garbage collection, which ensures that nothing refers to them.
    async fn remove_blob(&self, digest: &Digest) -> Result<(), SourceError>;

    /// Quarantines the bytes of a corrupt blob or manifest, for inspection by an operator. To readers they are absent,
    /// as after [`RegistryStore::remove_blob`], and may be published again. The store keeps a few entries and deletes
    /// the oldest.
    ///
    /// # Errors
    /// Returns `NotFound` if the store has no such bytes.
    async fn quarantine_blob(&self, digest: &Digest) -> Result<(), SourceError>;

    /// Reads a metadata entry of `repository`; `None` if it does not exist. The repository itself need not exist.
    async fn metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
    ) -> Result<Option<Bytes>, SourceError>;

    /// Replaces a metadata entry, of at most [`MAX_METADATA_BYTES`](super::MAX_METADATA_BYTES); `None` removes it.
    ///
    /// # Errors
    /// Returns `Unsupported` if the text is too large.
    async fn put_metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
        text: Option<Bytes>,
    ) -> Result<(), SourceError>;

    /// Lists all metadata entries, in no particular order; repositories are named as in
    /// [`RegistryStore::repositories`].
    fn all_metadata(&self) -> BoxStream<'_, Result<(RepositoryName, MetadataName), SourceError>>;

    /// The free space in bytes; `None` if it is unknown, for example for a bucket.
    async fn free_bytes(&self) -> Result<Option<u64>, SourceError>;
}

/// A stored blob or manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlob {
    /// The digest.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
    /// The time of the last write.
    pub modified: SystemTime,
}

/// An open upload. Dropping it keeps the acknowledged bytes, so that it can be resumed.
#[async_trait]
pub trait Upload: fmt::Debug + Send + 'static {
    /// Number of acknowledged bytes.
    fn offset(&self) -> u64;

    /// Preferred number of bytes per `append`, which the caller buffers in memory. Stores that persist each append as an
    /// object prefer large ones.
    fn batch_bytes(&self) -> usize {
        256 << 10
    }

    /// Stores the next bytes; they are acknowledged when this returns.
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError>;

    /// Publishes the uploaded bytes as the blob `expected` of the repository, and ends the upload.
    ///
    /// # Errors
    /// Returns `InvalidContent` if the digest differs: the upload is then deleted, and nothing is published.
    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError>;

    /// Deletes the upload and frees its space.
    async fn cancel(self: Box<Self>) -> Result<(), SourceError>;
}

/// Identifier of an upload: a UUID, as in Docker's registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(String);

/// A text is not an [`UploadId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an upload id: it is 8-4-4-4-12 lower-case hex digits")]
pub struct InvalidUploadId;

impl UploadId {
    /// Creates an id from 16 random bytes (RFC 9562, version 4). The caller supplies the bytes: this crate has no source
    /// of randomness.
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
    fn upload_id_accepts_only_uuids() {
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
