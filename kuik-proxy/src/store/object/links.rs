//! Links: small objects that name a repository's content; and the age of bytes.
//!
//! Invariant: a reader that sees a tag finds its manifest. Writers put the manifest's link before the tag's; deletes
//! remove the tags' before the manifest's. Within a process a lock separates them. Between processes a tag may be put
//! in the middle of a delete: then it has no target, and counts as absent.

use bytes::Bytes;
use kuik_core::content::{Digest, SourceError, SourceErrorKind};

use super::{Shared, renewed};

/// Maximum size of a link in bytes: a digest and an end of line.
const MAX_LINK_BYTES: u64 = 1024;

impl Shared {
    /// Returns the content of `link`; `None` if it is absent or damaged.
    pub(super) async fn read_link(&self, attempted: &str, link: &str) -> Result<Option<Digest>, SourceError> {
        let text = self.bucket.read(attempted, link, MAX_LINK_BYTES).await?;
        Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()))
    }

    /// Fails with `NotFound` unless `link` names `digest`.
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

    /// Writes `digest` into `link`.
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

    /// Updates the age of stored bytes to now, because new content relies on them: garbage collection keeps young
    /// content. The age of an object cannot be changed, so an empty marker object records it.
    pub(super) async fn renew(&self, attempted: &str, digest: &Digest) -> Result<(), SourceError> {
        self.bucket.put(attempted, &renewed(digest), Bytes::new()).await
    }
}
