//! Manifest freshness: when a cached manifest is valid, and what happens when a tag may have moved.
//!
//! Memory entries expire, those of digests too: another process may share the store, and its changes are seen here
//! within that time.

use std::{sync::Arc, time::Duration};

use kuik_core::content::{
    CacheStatus, Cached, Freshness, Manifest, SourceError, SourceErrorKind, TagOrDigest,
};
use tokio::time::Instant;

use super::{
    ManifestKey, Revalidate, Shared,
    manifest_cache::{Remembered, StorageState},
    report_unless_absent,
};

/// Time to the next revalidation after one that failed slowly. It bounds how often a pull waits for an upstream that
/// does not respond.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A revalidation that takes longer than this to fail is slow. One that fails faster is repeated on the next pull, which
/// costs little: the client has circuit breakers and rate limits.
const SLOW: Duration = Duration::from_secs(1);

/// How long memory answers for content that is not revalidated upstream.
const STORE_CHECK_AFTER: Duration = Duration::from_secs(60);

/// Time of the next store check for content that is not revalidated upstream.
pub(super) fn next_store_check() -> Option<Instant> {
    Instant::now().checked_add(STORE_CHECK_AFTER)
}

impl Shared {
    /// Returns the manifest in memory, if it needs no check.
    pub(super) fn fresh_in_memory(
        self: &Arc<Self>,
        key: &ManifestKey,
        freshness: Freshness,
    ) -> Option<Cached<Manifest>> {
        let remembered = self.memory.get(key)?;
        let asks_upstream = freshness == Freshness::Revalidate && matches!(key.1, TagOrDigest::Tag(_));
        if asks_upstream || remembered.check_at.is_some_and(|due| due <= Instant::now()) {
            return None;
        }
        self.store_again_if_failed(key, &remembered);
        let cache_status = remembered.stale.map_or(CacheStatus::Cache, CacheStatus::Stale);
        Some(Cached { content: remembered.manifest, cache_status })
    }

    /// Stores the manifest that is in memory under `key` if its last write to the store failed.
    fn store_again_if_failed(self: &Arc<Self>, key: &ManifestKey, remembered: &Remembered) {
        if remembered.storage == StorageState::Failed && self.memory.take_failed(key) {
            self.store_in_background(key.clone(), remembered.manifest.clone());
        }
    }

    /// Returns when a manifest that was checked just now is due again.
    pub(super) fn next_check(&self, key: &ManifestKey) -> Option<Instant> {
        match self.revalidated_after(key) {
            None => next_store_check(),
            Some(age) => Instant::now().checked_add(age),
        }
    }

    /// Returns the age at which the manifest is revalidated upstream; `None` if it is not: digests never change, and
    /// managed tags are refreshed by their controller.
    fn revalidated_after(&self, (repository, at): &ManifestKey) -> Option<Duration> {
        match (at, self.options.revalidate) {
            (TagOrDigest::Digest(_), _) | (_, Revalidate::Never) => None,
            (TagOrDigest::Tag(tag), Revalidate::After(age)) => {
                (!self.managed.is_managed(repository, tag)).then_some(age)
            }
        }
    }

    /// Returns the manifest from the store or from upstream, after a miss in memory.
    pub(super) async fn lookup(
        self: &Arc<Self>,
        key: &ManifestKey,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        let remembered = self.memory.get(key);
        let before = remembered.as_ref().map(|remembered| &remembered.manifest);
        let Some(kept) = self.known(key, remembered.as_ref()).await else {
            if freshness == Freshness::OnlyIfCached {
                let (repository, at) = key;
                let attempted = format!("read {repository}, {at}, from the cache: it is not cached");
                return Err(SourceError::new(SourceErrorKind::NotFound, attempted));
            }
            return self.fetch_manifest(key, freshness).await.map(Cached::from_upstream);
        };
        let asks_upstream = match freshness {
            // It is not remembered: the next request may need a check.
            Freshness::OnlyIfCached => return Ok(Cached::from_cache(kept)),
            Freshness::Revalidate => matches!(key.1, TagOrDigest::Tag(_)),
            Freshness::Cached => self.revalidated_after(key).is_some(),
        };
        if let Some(remembered) = &remembered {
            self.store_again_if_failed(key, remembered);
        }
        if !asks_upstream {
            self.remember(key, &kept, next_store_check(), StorageState::Stored);
            return Ok(Cached::from_cache(kept));
        }
        let began = Instant::now();
        match self.revalidate(key, before, &kept).await {
            Ok(served) => Ok(served),
            Err(error) => match self.seen_moved(key, before, &kept) {
                Some(newer) => Ok(Cached::from_cache(newer)),
                None => Ok(self.serve_stale(key, kept, &error, began)),
            },
        }
    }

    /// Returns the tag's target if another lookup has seen it move since memory had `before` and the store `kept`.
    fn seen_moved(&self, key: &ManifestKey, before: Option<&Manifest>, kept: &Manifest) -> Option<Manifest> {
        let now = self.memory.get(key)?.manifest;
        let is_new = |earlier: &Manifest| earlier.digest() != now.digest();
        (before.is_none_or(is_new) && is_new(kept)).then_some(now)
    }

    /// Returns the manifest known locally. The store has precedence, because other processes may have moved or
    /// deleted the entry; memory answers if the store has not received it yet, could not store it, or fails.
    async fn known(&self, key: &ManifestKey, remembered: Option<&Remembered>) -> Option<Manifest> {
        let (repository, at) = key;
        let is_ahead = remembered.is_some_and(|it| it.storage != StorageState::Stored);
        match self.store.manifest(repository, at, Freshness::Cached).await {
            Ok(served) if !is_ahead => return Some(served.content),
            Err(error) if error.is_not_found() && !is_ahead => return None,
            Err(error) => report_unless_absent(&error),
            Ok(_) => {}
        }
        remembered.map(|remembered| remembered.manifest.clone())
    }

    /// Revalidates the tag upstream with a `HEAD`, which costs no pull quota.
    async fn revalidate(
        self: &Arc<Self>,
        key: &ManifestKey,
        before: Option<&Manifest>,
        kept: &Manifest,
    ) -> Result<Cached<Manifest>, SourceError> {
        let (repository, at) = key;
        let request = self.upstream.resolve(repository, at, Freshness::Revalidate);
        let limit = self.options.revalidate_timeout;
        let too_late = |_| {
            let attempted = format!("revalidate {repository}:{at} upstream: no answer within {limit:?}");
            SourceError::new(SourceErrorKind::TimedOut, attempted)
        };
        let current = tokio::time::timeout(limit, request).await.map_err(too_late)??;
        if current.content.digest == *kept.digest() {
            if let Some(newer) = self.seen_moved(key, before, kept) {
                return Ok(Cached::from_cache(newer));
            }
            self.remember(key, kept, self.next_check(key), StorageState::Stored);
            return Ok(Cached::from_cache(kept.clone()));
        }
        let moved = self.fetch_manifest(key, Freshness::Revalidate);
        let moved = tokio::time::timeout(limit, moved).await.map_err(too_late)??;
        Ok(Cached::from_upstream(moved))
    }

    /// Returns the cached manifest after a revalidation, since `began`, that failed with any error. A 401, 403 or 404 is
    /// no exception: credentials expire, and an image that was deleted upstream has to run on.
    fn serve_stale(
        &self,
        key: &ManifestKey,
        kept: Manifest,
        error: &SourceError,
        began: Instant,
    ) -> Cached<Manifest> {
        let (repository, at) = key;
        tracing::warn!(%repository, tag = %at, error = error.chain(), "failed to revalidate a cached tag, serving it stale");
        let wait = if began.elapsed() > SLOW { RETRY_AFTER } else { Duration::ZERO };
        let age = self.revalidated_after(key).unwrap_or_default();
        let retry = Instant::now() + wait.max(age.min(RETRY_AFTER));
        self.sizes.note(repository, &kept);
        let remembered = Remembered {
            manifest: kept.clone(),
            check_at: Some(retry),
            storage: StorageState::Stored,
            stale: Some(error.kind()),
        };
        self.memory.put(key.clone(), remembered);
        Cached { content: kept, cache_status: CacheStatus::Stale(error.kind()) }
    }
}
