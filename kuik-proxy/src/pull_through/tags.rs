//! When a cached manifest will do, and what happens when a tag may have moved.

use std::{sync::Arc, time::Duration};

use kuik_core::content::{Freshness, Manifest, Origin, Served, SourceError, SourceErrorKind, TagOrDigest};
use tokio::time::Instant;

use super::{ManifestKey, Revalidate, Shared};

/// After upstream could not say where a tag points, it is left alone for so long.
const RETRY_AFTER: Duration = Duration::from_secs(10);

impl Shared {
    /// The manifest in memory, where nobody needs to be asked about it.
    pub(super) fn fresh_in_memory(
        self: &Arc<Self>,
        key: &ManifestKey,
        freshness: Freshness,
    ) -> Option<Manifest> {
        let remembered = self.memory.get(key)?;
        let fresh = match (&key.1, freshness) {
            (TagOrDigest::Digest(_), _) => true,
            (TagOrDigest::Tag(_), Freshness::Revalidate) => false,
            (TagOrDigest::Tag(_), Freshness::Cached) => {
                remembered.check_at.is_none_or(|due| Instant::now() < due)
            }
        };
        if !fresh {
            return None;
        }
        if remembered.unkept && self.memory.set_unkept(key, false) {
            self.keep(key.clone(), remembered.manifest.clone());
        }
        Some(remembered.manifest)
    }

    /// When a tag that was checked just now is due again.
    pub(super) fn next_check(&self) -> Option<Instant> {
        match self.options.revalidate {
            Revalidate::Never => None,
            Revalidate::After(age) => Instant::now().checked_add(age),
        }
    }

    /// The manifest from the store or from upstream, after memory could not answer.
    pub(super) async fn look_up(
        self: &Arc<Self>,
        key: &ManifestKey,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        let kept = match self.memory.get(key) {
            Some(remembered) => Some(remembered.manifest),
            None => self.kept_manifest(key).await,
        };
        let Some(kept) = kept else {
            return self.fetch_manifest(key, freshness).await.map(Served::from_upstream);
        };
        let never_checked = freshness == Freshness::Cached && self.options.revalidate == Revalidate::Never;
        if never_checked || matches!(key.1, TagOrDigest::Digest(_)) {
            self.remember(key, &kept, None);
            return Ok(Served::from_cache(kept));
        }
        match self.revalidate(key, &kept).await {
            Ok(served) => Ok(served),
            Err(error) => Ok(self.serve_stale(key, kept, &error)),
        }
    }

    /// Asks upstream where the tag points: with a `HEAD`, which costs no pull quota.
    async fn revalidate(
        self: &Arc<Self>,
        key: &ManifestKey,
        kept: &Manifest,
    ) -> Result<Served<Manifest>, SourceError> {
        let (repository, at) = key;
        let question = self.upstream.resolve(repository, at, Freshness::Revalidate);
        let limit = self.options.revalidate_timeout;
        let too_late = |_| {
            let attempted =
                format!("ask upstream where {repository}:{at} points: no answer within {limit:?}");
            SourceError::new(SourceErrorKind::TimedOut, attempted)
        };
        let current = tokio::time::timeout(limit, question).await.map_err(too_late)??;
        if current.content.digest == *kept.digest() {
            self.remember(key, kept, self.next_check());
            return Ok(Served::from_cache(kept.clone()));
        }
        let moved = self.fetch_manifest(key, Freshness::Revalidate);
        let moved = tokio::time::timeout(limit, moved).await.map_err(too_late)??;
        Ok(Served::from_upstream(moved))
    }

    fn serve_stale(&self, key: &ManifestKey, kept: Manifest, error: &SourceError) -> Served<Manifest> {
        let (repository, at) = key;
        tracing::warn!(%repository, tag = %at, error = error.chain(), "upstream does not confirm a cached tag: it is served as it is");
        let retry = self.next_check().map(|due| due.min(Instant::now() + RETRY_AFTER));
        self.remember(key, &kept, retry);
        Served { content: kept, origin: Origin::Stale }
    }
}
