//! When a cached manifest will do, and what happens when a tag may have moved.
//!
//! Memory answers for a while only, digests too: another process may share the store, and what it has moved or deleted
//! there is seen here within that time.

use std::{sync::Arc, time::Duration};

use kuik_core::content::{Freshness, Manifest, Origin, Served, SourceError, SourceErrorKind, TagOrDigest};
use tokio::time::Instant;

use super::{
    ManifestKey, Revalidate, Shared,
    memory::{Keeping, Remembered},
    report_unless_absent,
};

/// After upstream could not say where a tag points, it is left alone for so long.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long memory answers for what upstream is not asked about.
const LOOK_AFTER: Duration = Duration::from_secs(60);

/// When the store is looked at again for something that upstream is not asked about.
pub(super) fn next_look() -> Option<Instant> {
    Instant::now().checked_add(LOOK_AFTER)
}

impl Shared {
    /// The manifest in memory, where nobody needs to be asked about it.
    pub(super) fn fresh_in_memory(
        self: &Arc<Self>,
        key: &ManifestKey,
        freshness: Freshness,
    ) -> Option<Manifest> {
        let remembered = self.memory.get(key)?;
        let asks_upstream = freshness == Freshness::Revalidate && matches!(key.1, TagOrDigest::Tag(_));
        if asks_upstream || remembered.check_at.is_some_and(|due| due <= Instant::now()) {
            return None;
        }
        if remembered.keeping == Keeping::Failed && self.memory.take_failed(key) {
            self.keep(key.clone(), remembered.manifest.clone());
        }
        Some(remembered.manifest)
    }

    /// When a tag that was checked just now is due again.
    pub(super) fn next_check(&self) -> Option<Instant> {
        match self.options.revalidate {
            Revalidate::Never => next_look(),
            Revalidate::After(age) => Instant::now().checked_add(age),
        }
    }

    /// The manifest from the store or from upstream, after memory could not answer.
    pub(super) async fn look_up(
        self: &Arc<Self>,
        key: &ManifestKey,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        let remembered = self.memory.get(key);
        let before = remembered.as_ref().map(|remembered| &remembered.manifest);
        let Some(kept) = self.known(key, remembered.as_ref()).await else {
            return self.fetch_manifest(key, freshness).await.map(Served::from_upstream);
        };
        let never_checked = freshness == Freshness::Cached && self.options.revalidate == Revalidate::Never;
        if never_checked || matches!(key.1, TagOrDigest::Digest(_)) {
            self.remember(key, &kept, next_look(), Keeping::Kept);
            return Ok(Served::from_cache(kept));
        }
        match self.revalidate(key, before, &kept).await {
            Ok(served) => Ok(served),
            Err(error) => match self.seen_to_move(key, before, &kept) {
                Some(newer) => Ok(Served::from_cache(newer)),
                None => Ok(self.serve_stale(key, kept, &error)),
            },
        }
    }

    /// What the tag names now, where another look-up has seen it move since memory had `before` and the store `kept`.
    fn seen_to_move(
        &self,
        key: &ManifestKey,
        before: Option<&Manifest>,
        kept: &Manifest,
    ) -> Option<Manifest> {
        let now = self.memory.get(key)?.manifest;
        let is_new = |earlier: &Manifest| earlier.digest() != now.digest();
        (before.is_none_or(is_new) && is_new(kept)).then_some(now)
    }

    /// What is known of a manifest here. The store has the first word, because others may have moved or deleted what
    /// memory has; memory has it where the store was not given that yet, could not keep it, or fails.
    async fn known(&self, key: &ManifestKey, remembered: Option<&Remembered>) -> Option<Manifest> {
        let (repository, at) = key;
        let is_ahead = remembered.is_some_and(|it| it.keeping != Keeping::Kept);
        match self.store.manifest(repository, at, Freshness::Cached).await {
            Ok(served) if !is_ahead => return Some(served.content),
            Err(error) if error.is_not_found() && !is_ahead => return None,
            Err(error) => report_unless_absent(&error),
            Ok(_) => {}
        }
        remembered.map(|remembered| remembered.manifest.clone())
    }

    /// Asks upstream where the tag points: with a `HEAD`, which costs no pull quota.
    async fn revalidate(
        self: &Arc<Self>,
        key: &ManifestKey,
        before: Option<&Manifest>,
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
            if let Some(newer) = self.seen_to_move(key, before, kept) {
                return Ok(Served::from_cache(newer));
            }
            self.remember(key, kept, self.next_check(), Keeping::Kept);
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
        self.remember(key, &kept, retry, Keeping::Kept);
        Served { content: kept, origin: Origin::Stale(error.kind()) }
    }
}
