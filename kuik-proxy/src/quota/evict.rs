//! Counts the store at intervals, and evicts when it gets full.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::TryStreamExt as _;
use kuik_core::content::{ManagedStore, SourceError};
use tokio::time::Instant;

use super::{
    Pulls, QuotaMetrics, Usage,
    choose::{Standing, choose},
    inventory::Inventory,
    unlink::Unlinking,
};
use crate::{
    gc::{Collector, GcError, GcOptions, Key, Leases, Run},
    pull_through::PullThrough,
};

/// How long counts are apart where nobody needs room: another process may have written to the store.
const COUNT: Duration = Duration::from_secs(600);

/// How long free space is believed, and how long pulls are only remembered.
const FREE: Duration = Duration::from_secs(30);
const FLUSH: Duration = Duration::from_secs(300);

/// After a round that found nothing to go there is none for at least so long, and for so many times as long as it took, but
/// never for longer than that.
const REST: Duration = Duration::from_secs(1);
const SHARE: u32 = 10;
const MOST_REST: Duration = Duration::from_secs(600);

/// How long a run of the collector that goes on is waited for, and in what steps.
const RUNNING: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_millis(500);

/// Keeps a store within its limit. The fields are what it works with.
#[derive(Debug)]
pub struct Quota {
    /// The store: the [`Limited`](super::Limited) one, so that what goes is counted.
    pub store: Arc<dyn ManagedStore>,
    /// What was written and removed.
    pub usage: Usage,
    /// What was pulled.
    pub pulls: Arc<Pulls>,
    /// What it is to be told of.
    pub metrics: QuotaMetrics,
    /// Removes what nothing needs, from the same store and with the same leases.
    pub collector: Collector,
    /// The leases of everybody who uses the store.
    pub leases: Leases,
    /// What the collector collects before any image goes.
    pub garbage: GcOptions,
    /// An image stays of which something was written more recently than so long ago. A moment where nobody else
    /// writes to the store; where other processes do, longer than a push of theirs takes to name what it found.
    pub settle: Duration,
    /// Remembers manifests of images that go, where there is one.
    pub cache: Option<PullThrough>,
}

impl Quota {
    /// Runs for as long as the future is polled. What fails is logged, and tried again later.
    pub async fn run(self) -> ! {
        self.usage.attend();
        let (mut count_at, mut flush_at) = (Instant::now(), Instant::now() + FLUSH);
        loop {
            let mut wait = FREE;
            self.look_at_free_space().await;
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
            if self.usage.must_go() > 0 {
                let began = Instant::now();
                let round = self.round().await;
                let rest = (began.elapsed() * SHARE).clamp(REST, MOST_REST);
                let rest = (!matches!(round, Ok(true))).then_some(rest);
                self.usage.end_round(rest);
                wait = rest.unwrap_or(FREE).min(FREE);
                self.report(round.map(drop));
            }
            // Whoever wants room ends the wait, and time does.
            let _ = tokio::time::timeout(wait, self.usage.wanted()).await;
        }
    }

    /// Makes room: garbage first, then images. Whether any space came back.
    ///
    /// # Errors
    /// Where the store fails. What went until then was to go.
    pub async fn round(&self) -> Result<bool, SourceError> {
        self.count().await?;
        // None is idle for so long: this only sees which uploads another process has ended.
        self.store.purge_uploads(SystemTime::UNIX_EPOCH).await?;
        if self.usage.must_go() == 0 {
            // Another process has evicted.
            return Ok(true);
        }
        let began = SystemTime::now();
        let written_before = began.checked_sub(self.settle).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut garbage = self.collect(None).await?;
        if self.usage.must_go() > 0 {
            let fetched = self.usage.take_fetched();
            let collected = self.collect(Some((&fetched, written_before))).await;
            // Those that stay have been too young, or something refers to them now: the next round looks again.
            self.usage.still_fetched(fetched);
            garbage += collected?;
        }
        let need = self.usage.must_go();
        if need == 0 {
            return Ok(true);
        }
        self.pulls.flush(self.store.as_ref()).await?;
        let run = self.begin().await?;
        let inventory = Inventory::take(self.store.as_ref(), began, written_before).await?;
        let chosen = choose(&inventory.candidates, &inventory.sizes, need);
        let gone = self.evict(&run, inventory, chosen, began, written_before).await?;
        drop(run);
        let collected = match gone.is_empty() {
            true => Ok(0),
            false => self.collect(Some((&gone, written_before))).await,
        };
        // What is not collected now is for the next round.
        let freed = collected.inspect_err(|_| self.usage.still_fetched(gone.clone()))?;
        self.metrics.evicted_bytes.inc_by(freed);
        tracing::info!(garbage, digests = gone.len(), bytes = freed, wanted = need, "room was made");
        Ok(garbage + freed > 0)
    }

    /// Takes images out of their repositories, where nobody has come for them since `run` began; returns everything that
    /// they were made of.
    async fn evict(
        &self,
        run: &Run,
        inventory: Inventory,
        chosen: Vec<usize>,
        began: SystemTime,
        written_before: SystemTime,
    ) -> Result<HashSet<Key>, SourceError> {
        let images = chosen.iter().filter_map(|place| inventory.images.get(*place));
        let manifests: Vec<_> = images.flat_map(|image| image.manifests.iter().cloned()).collect();
        if manifests.is_empty() {
            return Ok(HashSet::new());
        }
        match self.leases.announce(&manifests).await? {
            None => self.unlink(&chosen, Unlinking::new(&self.store, &inventory, run, None)).await,
            Some(announced) => {
                let now = Inventory::take(self.store.as_ref(), began, written_before).await?;
                let chosen = now.again(&inventory, &chosen);
                let unlinking = Unlinking::new(&self.store, &now, run, Some(announced.until()));
                let gone = self.unlink(&chosen, unlinking).await;
                announced.withdraw().await;
                gone
            }
        }
    }

    async fn unlink(
        &self,
        chosen: &[usize],
        mut unlinking: Unlinking<'_>,
    ) -> Result<HashSet<Key>, SourceError> {
        for place in chosen {
            if !unlinking.counts() {
                tracing::warn!(left = chosen.len(), "evicting took longer than other processes wait");
                break;
            }
            let (image, candidate) = match unlinking.unlink(*place).await {
                Ok(Some(left)) => left,
                Ok(None) => continue,
                Err(error) => {
                    // What is not collected now is for the next round.
                    self.usage.still_fetched(unlinking.gone());
                    return Err(error);
                }
            };
            let expired = candidate.standing == Standing::Expired;
            self.metrics.evicted(expired);
            tracing::info!(repository = %image.repository, digest = %image.top, expired, "an image is evicted");
            if let Some(cache) = &self.cache {
                cache.forget(&image.repository);
            }
        }
        Ok(unlinking.gone())
    }

    /// Takes note of who comes for what from now on, as soon as no run of the collector does.
    async fn begin(&self) -> Result<Run, SourceError> {
        alone(|| std::future::ready(self.leases.begin(Duration::ZERO).ok_or(GcError::Running))).await
    }

    /// A run of the collector, over garbage or over these digests where they were written before then; returns what
    /// came back.
    async fn collect(&self, only: Option<(&HashSet<Key>, SystemTime)>) -> Result<u64, SourceError> {
        let run = alone(|| async move {
            match only {
                None => self.collector.run(&self.garbage, |_| {}).await,
                Some((digests, written_before)) => self.collector.run_on(digests, written_before).await,
            }
        });
        Ok(run.await?.reclaimed_bytes)
    }

    /// Counts everything that is kept.
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

    async fn look_at_free_space(&self) {
        if let Ok(free) = self.store.free_bytes().await {
            self.metrics.free.set(free.unwrap_or(0));
        }
    }

    fn report(&self, outcome: Result<(), SourceError>) {
        if let Err(error) = outcome {
            self.metrics.failed.inc();
            tracing::warn!(error = error.chain(), "the store's quota cannot be kept");
        }
    }
}

/// What there is to be done while no run of the collector goes on: waits for the end of one.
async fn alone<T, F: Future<Output = Result<T, GcError>>>(work: impl Fn() -> F) -> Result<T, SourceError> {
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
    let attempted = "make room in the store: a part of that ended early";
    SourceError::caused_by(kuik_core::content::SourceErrorKind::Storage, attempted, error)
}
