//! Deletes: tags, manifests, links to blobs, and unreferenced bytes.
//!
//! A tag is removed atomically with its current link. A manifest's tags are removed first: an interrupted delete,
//! which was not acknowledged, leaves it with some of them.

use std::{
    cmp::Reverse,
    time::{Duration, SystemTime},
};

use futures::{StreamExt as _, TryStreamExt as _};
use kuik_core::{
    content::{Digest, SourceError, SourceErrorKind, TagOrDigest},
    reference::Tag,
};

use super::{RepositoryKey, Shared, renewed, tags::tag_of};
use crate::store::layout;

/// Number of damaged blobs kept.
const SPECIMENS: usize = 16;

/// Number of concurrent reads of links.
const AT_ONCE: usize = 32;

/// Tolerance for the provider's clock.
const CLOCK_SLACK: Duration = Duration::from_secs(600);

impl Shared {
    /// Removes a tag with its history.
    pub(super) async fn delete_tag(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        tag: &Tag,
    ) -> Result<(), SourceError> {
        let link = repository.at(layout::tag_link(tag));
        if self.read_link(attempted, &link).await?.is_none() {
            return Err(SourceError::new(SourceErrorKind::NotFound, attempted));
        }
        self.bucket.delete(attempted, &link).await?;
        self.bucket.delete_below(attempted, &repository.at(layout::tag(tag))).await
    }

    /// Removes a manifest, after the tags that point at it. It reads every tag of the repository, and excludes
    /// writers of this process while it reads those added meanwhile.
    pub(super) async fn delete_manifest(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        digest: &Digest,
    ) -> Result<(), SourceError> {
        let link = repository.at(layout::revision_link(digest));
        let began = SystemTime::now().checked_sub(CLOCK_SLACK).unwrap_or(SystemTime::UNIX_EPOCH);
        self.require_link(attempted, &link, digest).await?;
        self.delete_tags_on(attempted, repository, digest, SystemTime::UNIX_EPOCH).await?;

        let _guard = match self.lock(repository) {
            Some(lock) => Some(lock.write().await),
            None => None,
        };
        self.require_link(attempted, &link, digest).await?;
        let at = TagOrDigest::Digest(digest.clone());
        let manifest = self.manifest(attempted, repository, &at).await;
        self.delete_tags_on(attempted, repository, digest, began).await?;
        self.bucket.delete(attempted, &link).await?;
        // A link left over because the manifest is damaged is harmless: lists show only readable manifests.
        if let Some(subject) = manifest.ok().and_then(|manifest| manifest.subject()) {
            self.bucket.delete(attempted, &repository.at(layout::referrer_link(&subject, digest))).await?;
        }
        Ok(())
    }

    /// Removes the tags that were put since `since` and point at a manifest.
    async fn delete_tags_on(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        digest: &Digest,
        since: SystemTime,
    ) -> Result<(), SourceError> {
        let prefix = repository.at(layout::TAGS);
        let listed = self.bucket.list(attempted.to_owned(), &prefix, None);
        let prefix = prefix.as_str();
        let mut targets = listed
            .try_filter_map(|found| {
                let tag = tag_of(prefix, &found.key).filter(|_| found.modified >= since);
                std::future::ready(Ok(tag.map(|tag| (tag, found.key))))
            })
            .map_ok(|(tag, key)| async move { Ok((tag, self.read_link(attempted, &key).await?)) })
            .try_buffer_unordered(AT_ONCE)
            .boxed();
        while let Some((tag, target)) = targets.try_next().await? {
            if target.as_ref() == Some(digest) {
                match self.delete_tag(attempted, repository, &tag).await {
                    Err(error) if error.is_not_found() => {}
                    deleted => deleted?,
                }
            }
        }
        Ok(())
    }

    /// Removes a blob from a repository.
    pub(super) async fn unlink_blob(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        digest: &Digest,
    ) -> Result<(), SourceError> {
        let link = repository.at(layout::layer_link(digest));
        self.require_link(attempted, &link, digest).await?;
        self.bucket.delete(attempted, &link).await
    }

    /// Removes bytes, and their age marker.
    pub(super) async fn remove_blob(&self, attempted: &str, digest: &Digest) -> Result<(), SourceError> {
        self.bucket.delete(attempted, &layout::blob(digest)).await?;
        self.bucket.delete(attempted, &renewed(digest)).await
    }

    /// Quarantines damaged bytes. The oldest quarantined ones make room. Bytes that the provider does not copy (S3:
    /// over 5 GiB) are removed without a copy: they must not be served any longer.
    pub(super) async fn quarantine_blob(&self, attempted: &str, digest: &Digest) -> Result<(), SourceError> {
        match self.bucket.copy(attempted, &layout::blob(digest), &layout::quarantined(digest)).await {
            Err(error) if error.is_not_found() => return Err(error),
            Err(error) => {
                let error = error.chain();
                tracing::warn!(%digest, %error, "cannot copy damaged blob to the quarantine, removing it");
            }
            Ok(()) => {}
        }
        self.remove_blob(attempted, digest).await?;
        let listed = self.bucket.list(attempted.to_owned(), layout::QUARANTINE, None);
        let mut specimens: Vec<_> =
            listed.map_ok(|found| (Reverse(found.modified), found.key)).try_collect().await?;
        specimens.sort_unstable();
        for (_, key) in specimens.iter().skip(SPECIMENS) {
            self.bucket.delete(attempted, key).await?;
        }
        Ok(())
    }
}
