//! Links: small objects that say what a repository has; and the age of bytes.
//!
//! Invariant: whoever sees a tag finds the manifest that it points at. Writers put the manifest's link before the
//! tag's; deletes take the tags' before the manifest's. Within a process a lock keeps them apart. Between processes a
//! tag may be put in the middle of a delete: then it points at nothing, and counts as absent.

use bytes::Bytes;
use kuik_core::content::{Digest, SourceError, SourceErrorKind};

use super::{Shared, renewed};

/// The largest link that is read, in bytes: a digest, and an end of line.
const MAX_LINK_BYTES: u64 = 1024;

impl Shared {
    /// What `link` says; `None` where it is absent or damaged.
    pub(super) async fn read_link(&self, attempted: &str, link: &str) -> Result<Option<Digest>, SourceError> {
        let text = self.bucket.read(attempted, link, MAX_LINK_BYTES).await?;
        Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()))
    }

    /// `NotFound` unless `link` says `digest`.
    pub(super) async fn require_link(
        &self,
        attempted: &str,
        link: &str,
        digest: &Digest,
    ) -> Result<(), SourceError> {
        match self.read_link(attempted, link).await? {
            Some(linked) if linked == *digest => Ok(()),
            _ => Err(SourceError::new(SourceErrorKind::NotFound, attempted)),
        }
    }

    /// Makes `link` say `digest`.
    pub(super) async fn write_link(
        &self,
        attempted: &str,
        link: &str,
        digest: &Digest,
    ) -> Result<(), SourceError> {
        if self.read_link(attempted, link).await?.is_some_and(|linked| linked == *digest) {
            return Ok(());
        }
        let text = Bytes::copy_from_slice(digest.as_str().as_bytes());
        self.bucket.put(attempted, link, text).await
    }

    /// Makes bytes that are kept already as young as if they had been written now, because somebody relies on them
    /// from now on: garbage collection spares what is young. The age of an object cannot be changed, so an empty one
    /// beside it says so.
    pub(super) async fn renew(&self, attempted: &str, digest: &Digest) -> Result<(), SourceError> {
        self.bucket.put(attempted, &renewed(digest), Bytes::new()).await
    }
}
