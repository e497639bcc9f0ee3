//! Scrub passes, and quarantine of damaged content.

use std::{
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant},
};

use kuik_core::content::{Digest, RegistryStore, SourceError, SourceErrorKind};
use tokio::sync::Mutex;

use super::{
    ScrubMetrics,
    examine::{Finding, examine},
    order,
    throttle::Throttle,
};
use crate::maintenance::gc::{Deadline, Leases};

/// Number of digests in a batch, found by one walk over the store.
const BATCH: usize = 4096;

/// Number of consecutive failures after which the store counts as broken.
const FAILURES: u32 = 16;

/// Number and interval of attempts to lock damaged content that is leased. After that, the next pass tries again.
const ATTEMPTS: u32 = 10;
const RETRY: Duration = Duration::from_millis(200);

/// Result of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Number of intact blobs and manifests.
    pub intact: u64,
    /// Number of damaged ones, which were quarantined.
    pub damaged: u64,
    /// Number of unreadable or unverifiable ones.
    pub unreadable: u64,
    /// Number of bytes read.
    pub bytes: u64,
    /// Duration, without the time between its parts if it was interrupted.
    pub took: Duration,
}

/// Verifies all content of a store, and quarantines damaged content.
///
/// ```
/// use std::{num::NonZeroU64, sync::Arc};
///
/// use kuik_core::content::Digest;
/// use kuik_testkit::MemoryStore;
/// use kuik_proxy::maintenance::{gc::Leases, scrub::Scrubber};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let (store, digest) = (MemoryStore::new(), Digest::sha256(b"hello"));
/// store.damage(&digest, "hallo");
/// let rate = NonZeroU64::new(10 << 20).expect("it is not zero");
/// let scrubber = Scrubber::new(Arc::new(store.clone()), Leases::default(), rate, Default::default());
/// assert_eq!(scrubber.pass().await?.damaged, 1);
/// assert_eq!(store.quarantined(&digest), Some("hallo".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Scrubber {
    store: Arc<dyn RegistryStore>,
    leases: Leases,
    rate: NonZeroU64,
    metrics: ScrubMetrics,
    pass: Mutex<Pass>,
}

/// A pass in progress, or interrupted.
#[derive(Debug, Default)]
struct Pass {
    /// Last verified digest.
    after: Option<Digest>,
    report: ScrubReport,
    failures: u32,
}

impl Scrubber {
    /// Creates a scrubber of `store`, the undecorated one, which reads at most `rate` bytes a second. All writers to
    /// the store use a [`LeasedStore`](crate::maintenance::gc::LeasedStore) with the same `leases`.
    #[must_use]
    pub fn new(
        store: Arc<dyn RegistryStore>,
        leases: Leases,
        rate: NonZeroU64,
        metrics: ScrubMetrics,
    ) -> Self {
        Self { store, leases, rate, metrics, pass: Mutex::default() }
    }

    pub(super) fn metrics(&self) -> &ScrubMetrics {
        &self.metrics
    }

    /// Runs one pass, or the rest of an interrupted one: dropping the future, or an error, interrupts it.
    ///
    /// # Errors
    /// Fails if the store cannot be walked, or fails repeatedly.
    pub async fn pass(&self) -> Result<ScrubReport, SourceError> {
        let mut pass = self.pass.lock().await;
        let mut throttle = Throttle::new(self.rate);
        loop {
            let began = Instant::now();
            let batch = order::next(self.store.as_ref(), pass.after.as_ref(), BATCH).await;
            pass.report.took += began.elapsed();
            let batch = batch?;
            if batch.is_empty() {
                return Ok(std::mem::take(&mut *pass).report);
            }
            for digest in batch {
                let began = Instant::now();
                let verified = self.verify(&digest, &mut throttle, &mut pass.report).await;
                pass.report.took += began.elapsed();
                pass.after = Some(digest);
                match verified {
                    Ok(()) => pass.failures = 0,
                    Err(error) if pass.failures + 1 >= FAILURES => {
                        pass.failures = 0;
                        return Err(error);
                    }
                    Err(error) => {
                        tracing::warn!(error = error.chain(), "cannot verify stored bytes");
                        pass.failures += 1;
                        pass.report.unreadable += 1;
                        self.metrics.unreadable.inc();
                    }
                }
            }
        }
    }

    async fn verify(
        &self,
        digest: &Digest,
        throttle: &mut Throttle,
        report: &mut ScrubReport,
    ) -> Result<(), SourceError> {
        let read = |bytes| {
            report.bytes += bytes;
            self.metrics.bytes.inc_by(bytes);
        };
        match examine(self.store.as_ref(), digest, Some(throttle), read).await? {
            Finding::Intact(_) => {
                report.intact += 1;
                self.metrics.blobs.inc();
            }
            Finding::Damaged(_) => {
                if self.quarantine(digest).await? {
                    report.damaged += 1;
                    self.metrics.damaged.inc();
                }
            }
            Finding::Gone => {}
            Finding::Unverifiable => report.unreadable += 1,
        }
        Ok(())
    }

    /// Quarantines bytes that are still damaged when they cannot be in replacement; returns whether it did.
    async fn quarantine(&self, digest: &Digest) -> Result<bool, SourceError> {
        let announced = self.leases.announce(std::slice::from_ref(digest)).await?;
        let deadline = announced.as_ref().map(|announced| announced.deadline().clone());
        let done = self.quarantine_exclusively(digest, deadline).await;
        if let Some(announced) = announced {
            announced.withdraw().await;
        }
        done
    }

    /// Quarantines damaged bytes that no other process can be replacing.
    async fn quarantine_exclusively(
        &self,
        digest: &Digest,
        deadline: Option<Deadline>,
    ) -> Result<bool, SourceError> {
        let mut attempts = 0;
        let exclusion = loop {
            match self.leases.exclude(digest) {
                Some(exclusion) => break exclusion,
                None if attempts == ATTEMPTS => {
                    tracing::info!(%digest, "stored bytes look damaged but are in use, the next pass verifies them again");
                    return Ok(false);
                }
                None => attempts += 1,
            }
            tokio::time::sleep(RETRY).await;
        };
        let (store, digest) = (self.store.clone(), digest.clone());
        // Started disk work does not stop, and no lease may be granted before it is done.
        let work = tokio::spawn(async move {
            let _alone = exclusion;
            let Finding::Damaged(problem) = examine(store.as_ref(), &digest, None, |_| {}).await? else {
                return Ok(false);
            };
            if deadline.is_some_and(|deadline| !deadline.is_valid()) {
                tracing::info!(%digest, "stored bytes are damaged, but verification took longer than the notice period; the next pass verifies them again");
                return Ok(false);
            }
            store.quarantine_blob(&digest).await?;
            tracing::warn!(%digest, problem, "quarantined damaged content");
            Ok(true)
        });
        work.await.unwrap_or_else(|error| {
            let attempted = "quarantine damaged bytes: the task ended early";
            Err(SourceError::caused_by(SourceErrorKind::Storage, attempted, error))
        })
    }
}
