//! Blob lookup: from the store, or from the fill that all clients of a blob share.

use std::time::Duration;

use kuik_core::{
    content::{Blob, BlobLocation, ByteRange, Cached, Digest, SourceError, SourceErrorKind},
    reference::RepositoryName,
};

use super::{Shared, report_unless_absent};
use crate::fill::{self, Started};

/// Maximum number of lookups: between two of them, the blob may be published, or turn out to belong to another
/// repository.
const MAX_LOOKUPS: usize = 4;

/// State of a blob in the store.
enum Stored {
    Readable(Cached<Blob>),
    Absent,
    /// The blob is damaged and must be replaced.
    Unreadable,
}

impl Shared {
    /// Returns a blob from the store, from a running fill, or from a fill that this request starts.
    pub(super) async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        let mut refused = None;
        for _ in 0..MAX_LOOKUPS {
            // A client may have parts of wrong content, so it gets all of the right one: a server may ignore a range
            // (RFC 9110, 14.2).
            let range = match range {
                ByteRange::Full => range,
                _ if self.fills.was_corrupt(repository, digest) => ByteRange::Full,
                _ => range,
            };
            // A running fill first: while it publishes, the store has the blob without its links.
            let joined = match self.fills.join(repository, digest) {
                Some(joined) => joined,
                None => {
                    let unreadable = match self.stored_blob(repository, digest, range).await? {
                        Stored::Readable(blob) => return Ok(blob),
                        Stored::Absent => false,
                        Stored::Unreadable => true,
                    };
                    let mut replaces = unreadable;
                    if !unreadable && let Ok(Some(size)) = self.store.has_blob(digest).await {
                        // A fill may have started and finished between the two lookups.
                        if self.fills.join(repository, digest).is_some() {
                            continue;
                        }
                        if let Stored::Readable(blob) = self.stored_blob(repository, digest, range).await? {
                            return Ok(blob);
                        }
                        // The blob belongs to another repository; it is linked here once upstream proves that this
                        // repository has it too.
                        if self.upstream_proves(repository, digest, size).await? {
                            match self.store.link_blob(repository, digest).await {
                                // Collected as garbage just now: fetch it.
                                Err(error) if error.is_not_found() => continue,
                                linked => linked?,
                            }
                            continue;
                        }
                        replaces = true;
                    }
                    self.fills.join_or_start(repository, digest, &self.upstream, &self.store, replaces)?
                }
            };
            let fill = joined.fill().clone();
            if !fill.authorized().has(repository) {
                self.upstream.blob_size(repository, digest).await?;
                if !fill.authorized().authorize(repository) {
                    continue;
                }
            }
            if let Some(size) = self.sizes.of(repository, digest) {
                fill.expect(size);
            }
            match joined.read(range).await {
                Ok(Some(blob)) => return Ok(Cached::from_upstream(blob)),
                Ok(None) => {}
                Err(error) if fill.is_fetched_from(repository) => return Err(error),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| {
            let attempted =
                format!("read blob {digest} of {repository}: the store does not retain published blobs");
            SourceError::new(SourceErrorKind::Storage, attempted)
        }))
    }

    /// Reads a blob from the store. Its size must match its manifest.
    async fn stored_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Stored, SourceError> {
        let answer = self.store.blob(repository, digest, range).await;
        let size = match &answer {
            Ok(blob) => blob.content.size,
            Err(error) if error.is_not_found() => return Ok(Stored::Absent),
            Err(error) if error.kind() == SourceErrorKind::Storage => {
                report_unless_absent(error);
                return Ok(Stored::Unreadable);
            }
            // In a truncated blob, a range may be missing that the complete blob has.
            Err(_) => self.store.has_blob(digest).await.ok().flatten(),
        };
        if let Some(size) = size
            && self.sizes.contradict(repository, digest, size)
        {
            self.sizes.forget(repository, digest);
            tracing::warn!(%repository, %digest, size, "stored blob does not have the size in its manifest, fetching it again");
            return Ok(Stored::Unreadable);
        }
        answer.map(Stored::Readable)
    }

    /// Returns a direct URL of the stored blob, if [`Shared::blob`] would serve that blob.
    pub(super) async fn blob_location(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        valid_for: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        if self.fills.join(repository, digest).is_some() {
            return Ok(None);
        }
        let location = self.store.blob_location(repository, digest, valid_for).await?;
        Ok(location.filter(|location| !self.sizes.contradict(repository, digest, location.size())))
    }

    pub(super) async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        let fill = self.fills.join(repository, digest).map(|joined| joined.fill().clone());
        if let Some(fill) = fill.filter(|fill| fill.authorized().has(repository))
            && let Ok(Started::Filling { size: Some(size) }) = fill.started().await
        {
            return Ok(Cached::from_upstream(size));
        }
        match self.store.blob_size(repository, digest).await {
            Ok(size) if self.sizes.contradict(repository, digest, size.content) => {}
            Ok(size) => return Ok(size),
            Err(error) => report_unless_absent(&error),
        }
        fill::verifier(repository, digest)?;
        self.upstream.blob_size(repository, digest).await
    }
}
