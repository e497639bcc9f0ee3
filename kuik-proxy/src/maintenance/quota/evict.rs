//! Quota loop: counts the store at intervals, evicts images when it is nearly full, and removes expired unmanaged ones.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::TryStreamExt as _;
use kuik_core::content::{RegistryStore, SourceError};
use tokio::time::Instant;

use super::{
    Pulls, QuotaMetrics, UnmanagedExpiry, Usage,
    eviction_order::choose,
    inventory::Inventory,
    unlink::{Unlinking, Uses},
};
use crate::{
    maintenance::{
        gc::{Collector, GcError, GcOptions, Key, Leases, Run},
        retention::RetentionIndex,
    },
    pull_through::PullThrough,
};

/// Interval between counts when no space is requested: another process may have written to the store.
const COUNT: Duration = Duration::from_secs(600);

/// Interval between reads of the free space, and between writes of recorded pulls.
const FREE: Duration = Duration::from_secs(30);
const FLUSH: Duration = Duration::from_secs(300);

/// Pause after a round that freed nothing: at least `REST`, `SHARE` times as long as the round took, and at most
/// `MOST_REST`.
const REST: Duration = Duration::from_secs(1);
const SHARE: u32 = 10;
const MOST_REST: Duration = Duration::from_secs(600);

/// Time limit of the wait for a run of the collector, and its polling interval.
const RUNNING: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_millis(500);

/// Why images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Space is needed.
    Space,
    /// They are unmanaged, and were not pulled for long.
    Age,
}

/// Keeps a store within its size limit. The fields are its dependencies and options.
#[derive(Debug)]
pub struct Quota {
    /// The store, wrapped in [`QuotaStore`](super::QuotaStore), so that removals are counted.
    pub store: Arc<dyn RegistryStore>,
    /// Counts writes and removals.
    pub usage: Usage,
    /// Records pulls.
    pub pulls: Arc<Pulls>,
    /// Retention documents of clusters.
    pub retention: RetentionIndex,
    /// When images expire that no cluster manages; `None` is never.
    pub unmanaged: Option<UnmanagedExpiry>,
    /// Metrics of the quota.
    pub metrics: QuotaMetrics,
    /// Removes unreferenced content, from the same store and with the same leases.
    pub collector: Collector,
    /// Leases of all users of the store.
    pub leases: Leases,
    /// Options of the garbage collection that comes before evictions.
    pub garbage: GcOptions,
    /// An image is kept if any of its content was written within this period: a moment if this process is the only
    /// writer of the store; otherwise longer than a push of another process takes from finding a blob to naming it.
    pub settle: Duration,
    /// Manifest cache to invalidate, if there is one.
    pub cache: Option<PullThrough>,
}

impl Quota {
    /// Runs for as long as the future is polled. Failures are logged and retried later.
    pub async fn run(self) -> ! {
        self.usage.enable_eviction();
        let (mut count_at, mut flush_at) = (Instant::now(), Instant::now() + FLUSH);
        let mut expire_at = self.unmanaged.map(|expiry| Instant::now() + expiry.interval());
        loop {
            let mut wait = FREE;
            self.read_free_space().await;
            if Instant::now() >= count_at {
                let counted = self.count().await;
                self.report(counted);
                count_at = Instant::now() + COUNT;
            }
            if Instant::now() >= flush_at {
                let flushed = self.pulls.flush(self.store.as_ref()).await;
                self.report(flushed);
                flush_at = Instant::now() + FLUSH;
            }
            if let (Some(expiry), Some(due)) = (self.unmanaged, expire_at)
                && Instant::now() >= due
            {
                let expired = self.expire(expiry).await;
                self.report(expired);
                expire_at = Some(Instant::now() + expiry.interval());
            }
            if self.usage.bytes_to_free() > 0 {
                let began = Instant::now();
                let round = self.round().await;
                let rest = (began.elapsed() * SHARE).clamp(REST, MOST_REST);
                let rest = (!matches!(round, Ok(true))).then_some(rest);
                self.usage.end_round(rest);
                wait = rest.unwrap_or(FREE).min(FREE);
                self.report(round.map(drop));
            }
            let until_expiry = expire_at.map(|due| due.saturating_duration_since(Instant::now()));
            let wait = until_expiry.map_or(wait, |until| wait.min(until));
            // A request for space ends the wait early.
            let _ = tokio::time::timeout(wait, self.usage.wanted()).await;
        }
    }

    /// Frees space: garbage first, then images. Returns whether any was freed.
    ///
    /// # Errors
    /// Fails if the store fails. Everything removed before that was due.
    pub async fn round(&self) -> Result<bool, SourceError> {
        self.count().await?;
        // No upload is idle for this long: this only finds uploads that another process has ended.
        self.store.purge_uploads(SystemTime::UNIX_EPOCH).await?;
        if self.usage.bytes_to_free() == 0 {
            // Another process has evicted images.
            return Ok(true);
        }
        let written_before = self.written_before();
        let mut garbage = self.collect(None).await?;
        if self.usage.bytes_to_free() > 0 {
            let fetched = self.usage.take_fetched();
            let collected = self.collect(Some((&fetched, written_before))).await;
            // Kept ones were too young or are referenced now: the next round tries again.
            self.usage.still_fetched(fetched);
            garbage += collected?;
        }
        let need = self.usage.bytes_to_free();
        if need == 0 {
            return Ok(true);
        }
        let (run, inventory) = self.inventory(written_before).await?;
        let chosen = choose(&inventory.candidates, &inventory.sizes, need);
        let freed = self.remove(run, &inventory, &chosen, written_before, Cause::Space).await?;
        self.metrics.evicted_bytes.inc_by(freed);
        tracing::info!(garbage, bytes = freed, wanted = need, "freed space in the store");
        Ok(garbage + freed > 0)
    }

    /// Returns the time before which the content of an image must have been written, so that it may be removed.
    pub(super) fn written_before(&self) -> SystemTime {
        SystemTime::now().checked_sub(self.settle).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Takes the inventory, after beginning to record leases and pulls.
    pub(super) async fn inventory(
        &self,
        written_before: SystemTime,
    ) -> Result<(Run, Inventory), SourceError> {
        self.pulls.flush(self.store.as_ref()).await?;
        let run = self.begin().await?;
        self.retention.refresh(true).await?;
        let inventory = Inventory::take(self.store.as_ref(), &self.retention, written_before).await?;
        Ok((run, inventory))
    }

    /// Removes the images at these places, unless they were used since `run` began, and then their content that
    /// nothing else needs; returns the bytes freed.
    pub(super) async fn remove(
        &self,
        run: Run,
        inventory: &Inventory,
        chosen: &[usize],
        written_before: SystemTime,
        cause: Cause,
    ) -> Result<u64, SourceError> {
        let gone = self.unlink_all(&run, inventory, chosen, written_before, cause).await?;
        drop(run);
        if gone.is_empty() {
            return Ok(0);
        }
        // The next round collects the rest.
        let collected = self.collect(Some((&gone, written_before))).await;
        collected.inspect_err(|_| self.usage.still_fetched(gone.clone()))
    }

    /// Removes images from their repositories, unless they were used since `run` began; returns all their content.
    async fn unlink_all(
        &self,
        run: &Run,
        inventory: &Inventory,
        chosen: &[usize],
        written_before: SystemTime,
        cause: Cause,
    ) -> Result<HashSet<Key>, SourceError> {
        let uses = Uses { retention: &self.retention, pulls: &self.pulls };
        let images = chosen.iter().filter_map(|place| inventory.images.get(*place));
        let manifests: Vec<_> = images.flat_map(|image| image.manifests.iter().cloned()).collect();
        if manifests.is_empty() {
            return Ok(HashSet::new());
        }
        match self.leases.announce(&manifests).await? {
            None => {
                let unlinking = Unlinking::new(&self.store, uses, inventory, run, None);
                self.unlink(chosen, unlinking, cause).await
            }
            Some(announced) => {
                self.retention.refresh(true).await?;
                let now = Inventory::take(self.store.as_ref(), &self.retention, written_before).await?;
                let chosen = now.again(inventory, chosen);
                let unlinking = Unlinking::new(&self.store, uses, &now, run, Some(announced.deadline()));
                let gone = self.unlink(&chosen, unlinking, cause).await;
                announced.withdraw().await;
                gone
            }
        }
    }

    async fn unlink(
        &self,
        chosen: &[usize],
        mut unlinking: Unlinking<'_>,
        cause: Cause,
    ) -> Result<HashSet<Key>, SourceError> {
        for place in chosen {
            if !unlinking.is_valid() {
                tracing::warn!(
                    left = chosen.len(),
                    "eviction took longer than the notice period, continuing in the next round"
                );
                break;
            }
            let (image, candidate) = match unlinking.unlink(*place).await {
                Ok(Some(left)) => left,
                Ok(None) => continue,
                Err(error) => {
                    // The next round collects the rest.
                    self.usage.still_fetched(unlinking.gone());
                    return Err(error);
                }
            };
            let (repository, digest, reason) = (&image.repository, &image.top, candidate.rank.reason());
            match cause {
                Cause::Space => {
                    self.metrics.evicted(reason);
                    tracing::info!(%repository, %digest, reason, "evicted image");
                }
                Cause::Age => {
                    self.metrics.unmanaged_expired.inc();
                    tracing::info!(%repository, %digest, "removed an unmanaged image that was not pulled for long");
                }
            }
            if let Some(cache) = &self.cache {
                cache.forget(&image.repository);
            }
        }
        Ok(unlinking.gone())
    }

    /// Starts recording leases, as soon as no run of the collector is in progress.
    async fn begin(&self) -> Result<Run, SourceError> {
        exclusively(|| std::future::ready(self.leases.begin(Duration::ZERO).ok_or(GcError::Running))).await
    }

    /// Runs the collector over all garbage, or over these digests if they were written before that time; returns the
    /// bytes reclaimed.
    async fn collect(&self, only: Option<(&HashSet<Key>, SystemTime)>) -> Result<u64, SourceError> {
        let run = exclusively(|| async move {
            match only {
                None => self.collector.run(&self.garbage, |_| {}).await,
                Some((digests, written_before)) => self.collector.run_on(digests, written_before).await,
            }
        });
        Ok(run.await?.reclaimed_bytes)
    }

    /// Counts all stored content.
    async fn count(&self) -> Result<(), SourceError> {
        self.usage.begin_count();
        let walked = async {
            let mut blobs = self.store.blobs();
            while let Some(blob) = blobs.try_next().await? {
                self.usage.seen(&blob.digest, blob.size);
            }
            Ok(())
        };
        let walked = walked.await;
        self.usage.end_count(walked.is_ok());
        walked
    }

    async fn read_free_space(&self) {
        if let Ok(free) = self.store.free_bytes().await {
            self.metrics.free.set(free.unwrap_or(0));
        }
    }

    fn report(&self, outcome: Result<(), SourceError>) {
        if let Err(error) = outcome {
            self.metrics.failed.inc();
            tracing::warn!(error = error.chain(), "cannot enforce the store quota, retrying");
        }
    }
}

/// Runs `work` exclusively: waits while a run of the collector is in progress.
async fn exclusively<T, F: Future<Output = Result<T, GcError>>>(
    work: impl Fn() -> F,
) -> Result<T, SourceError> {
    let patience = Instant::now() + RUNNING;
    loop {
        match work().await {
            Ok(done) => return Ok(done),
            Err(GcError::Running) if Instant::now() < patience => tokio::time::sleep(STEP).await,
            Err(GcError::Store(error)) => return Err(error),
            Err(error) => return Err(ended_early(error)),
        }
    }
}

fn ended_early(error: impl std::error::Error + Send + Sync + 'static) -> SourceError {
    let attempted = "free space in the store: a task ended early";
    SourceError::caused_by(kuik_core::content::SourceErrorKind::Storage, attempted, error)
}
