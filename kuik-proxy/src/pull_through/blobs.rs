//! Blobs: out of the store, or out of the one fill that everybody shares.

use std::time::Duration;

use kuik_core::{
    content::{Blob, BlobLocation, ByteRange, Digest, Served, SourceError, SourceErrorKind},
    reference::RepositoryName,
};

use super::{Shared, report_unless_absent};
use crate::fill::{self, Started};

/// How often a blob is looked for: it may be published, or turn out to be another repository's, between two looks.
const LOOK_UPS: usize = 4;

/// What a store has of a blob.
enum Kept {
    Readable(Served<Blob>),
    Absent,
    /// Something that cannot be served: it is to be replaced.
    Unreadable,
}

impl Shared {
    /// A blob out of the store, out of a fill that is running, or out of a fill that this request starts.
    pub(super) async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
        let mut refused = None;
        for _ in 0..LOOK_UPS {
            // Who has parts of wrong content gets all of the right one: a server may ignore a range (RFC 9110, 14.2).
            let range = match range {
                ByteRange::Full => range,
                _ if self.fills.was_wrong(repository, digest) => ByteRange::Full,
                _ => range,
            };
            // A running fill first: while it publishes, the store has the blob without its links.
            let joined = match self.fills.join(repository, digest) {
                Some(joined) => joined,
                None => {
                    let unreadable = match self.kept_blob(repository, digest, range).await? {
                        Kept::Readable(blob) => return Ok(blob),
                        Kept::Absent => false,
                        Kept::Unreadable => true,
                    };
                    let mut replaces = unreadable;
                    if !unreadable && let Ok(Some(size)) = self.store.has_blob(digest).await {
                        // A fill may have run its whole course between the two looks.
                        if self.fills.join(repository, digest).is_some() {
                            continue;
                        }
                        if let Kept::Readable(blob) = self.kept_blob(repository, digest, range).await? {
                            return Ok(blob);
                        }
                        // Another repository's: ours once upstream shows that it is this one's too.
                        if self.upstream_shows(repository, digest, size).await? {
                            match self.store.link_blob(repository, digest).await {
                                // Collected as garbage just now: it is fetched, then.
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
            if !fill.admitted().has(repository) {
                self.upstream.blob_size(repository, digest).await?;
                if !fill.admitted().admit(repository) {
                    continue;
                }
            }
            if let Some(size) = self.sizes.of(repository, digest) {
                fill.expect(size);
            }
            match joined.read(range).await {
                Ok(Some(blob)) => return Ok(Served::from_upstream(blob)),
                Ok(None) => {}
                Err(error) if fill.is_fetched_from(repository) => return Err(error),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| {
            let attempted =
                format!("read blob {digest} of {repository}: the store does not keep what it is given");
            SourceError::new(SourceErrorKind::Storage, attempted)
        }))
    }

    /// What the store has of a blob. It is read only in the size that its manifest gives it.
    async fn kept_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Kept, SourceError> {
        let answer = self.store.blob(repository, digest, range).await;
        let size = match &answer {
            Ok(blob) => blob.content.size,
            Err(error) if error.is_not_found() => return Ok(Kept::Absent),
            Err(error) if error.kind() == SourceErrorKind::Storage => {
                report_unless_absent(error);
                return Ok(Kept::Unreadable);
            }
            // Of what was cut off, a range may be missing that the blob has.
            Err(_) => self.store.has_blob(digest).await.ok().flatten(),
        };
        if let Some(size) = size
            && self.sizes.contradict(repository, digest, size)
        {
            self.sizes.forget(repository, digest);
            tracing::warn!(%repository, %digest, size, "a stored blob has not the size that its manifest says: it is fetched again");
            return Ok(Kept::Unreadable);
        }
        answer.map(Kept::Readable)
    }

    /// Where the store's blob can be had, where [`Shared::blob`] would serve that one.
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
    ) -> Result<Served<u64>, SourceError> {
        let fill = self.fills.join(repository, digest).map(|joined| joined.fill().clone());
        if let Some(fill) = fill.filter(|fill| fill.admitted().has(repository))
            && let Ok(Started::Filling { size: Some(size) }) = fill.started().await
        {
            return Ok(Served::from_upstream(size));
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
