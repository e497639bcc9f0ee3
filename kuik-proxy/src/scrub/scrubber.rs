//! Passes over all that is stored, and what is done about what is damaged.

use std::{
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant},
};

use kuik_core::content::{Digest, ManagedStore, SourceError, SourceErrorKind};
use tokio::sync::Mutex;

use super::{
    ScrubMetrics,
    examine::{Finding, examine},
    order,
    pace::Pace,
};
use crate::gc::{Leases, Until};

/// How many digests one walk over the store looks for.
const BATCH: usize = 4096;

/// A store that fails so often in a row is out of order as a whole.
const FAILURES: u32 = 16;

/// How often, and how long apart, damaged bytes are asked for that somebody has a lease on. After that, they are for
/// the next pass.
const ATTEMPTS: u32 = 10;
const RETRY: Duration = Duration::from_millis(200);

/// What a pass found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// How many blobs and manifests had the bytes that they should.
    pub intact: u64,
    /// How many had not, and were set aside.
    pub damaged: u64,
    /// How many could not be read, or not be verified.
    pub unreadable: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// How long it took, without the time between its parts where it was cut off.
    pub took: Duration,
}

/// Verifies all that a store has, and sets aside what is damaged.
///
/// ```
/// use std::{num::NonZeroU64, sync::Arc};
///
/// use kuik_core::{content::Digest, testkit::MemoryStore};
/// use kuik_proxy::{gc::Leases, scrub::Scrubber};
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
    store: Arc<dyn ManagedStore>,
    leases: Leases,
    rate: NonZeroU64,
    metrics: ScrubMetrics,
    pass: Mutex<Pass>,
}

/// A pass that goes on, or was cut off.
#[derive(Debug, Default)]
struct Pass {
    /// The last digest that was looked at.
    after: Option<Digest>,
    report: ScrubReport,
    failures: u32,
}

impl Scrubber {
    /// A scrubber of `store` itself that reads at most `rate` bytes a second. Whoever writes to the store writes
    /// through a [`Leased`](crate::gc::Leased) one with the same `leases`.
    #[must_use]
    pub fn new(
        store: Arc<dyn ManagedStore>,
        leases: Leases,
        rate: NonZeroU64,
        metrics: ScrubMetrics,
    ) -> Self {
        Self { store, leases, rate, metrics, pass: Mutex::default() }
    }

    pub(super) fn metrics(&self) -> &ScrubMetrics {
        &self.metrics
    }

    /// One pass over everything, or the rest of one that was cut off: dropping the future, or an error, cuts it off.
    ///
    /// # Errors
    /// Where the store cannot be walked, or fails again and again.
    pub async fn pass(&self) -> Result<ScrubReport, SourceError> {
        let mut pass = self.pass.lock().await;
        let mut pace = Pace::new(self.rate);
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
                let looked = self.look(&digest, &mut pace, &mut pass.report).await;
                pass.report.took += began.elapsed();
                pass.after = Some(digest);
                match looked {
                    Ok(()) => pass.failures = 0,
                    Err(error) if pass.failures + 1 >= FAILURES => {
                        pass.failures = 0;
                        return Err(error);
                    }
                    Err(error) => {
                        tracing::warn!(error = error.chain(), "stored bytes cannot be verified");
                        pass.failures += 1;
                        pass.report.unreadable += 1;
                        self.metrics.unreadable.inc();
                    }
                }
            }
        }
    }

    async fn look(
        &self,
        digest: &Digest,
        pace: &mut Pace,
        report: &mut ScrubReport,
    ) -> Result<(), SourceError> {
        let read = |bytes| {
            report.bytes += bytes;
            self.metrics.bytes.inc_by(bytes);
        };
        match examine(self.store.as_ref(), digest, Some(pace), read).await? {
            Finding::Intact(_) => {
                report.intact += 1;
                self.metrics.blobs.inc();
            }
            Finding::Damaged(_) => {
                if self.set_aside(digest).await? {
                    report.damaged += 1;
                    self.metrics.damaged.inc();
                }
            }
            Finding::Gone => {}
            Finding::Unverifiable => report.unreadable += 1,
        }
        Ok(())
    }

    /// Sets bytes aside that are still damaged when nobody can be replacing them; says whether it did.
    async fn set_aside(&self, digest: &Digest) -> Result<bool, SourceError> {
        let announced = self.leases.announce(std::slice::from_ref(digest)).await?;
        let until = announced.as_ref().map(|announced| announced.until().clone());
        let done = self.set_aside_alone(digest, until).await;
        if let Some(announced) = announced {
            announced.withdraw().await;
        }
        done
    }

    /// The same, where no other process can be replacing them.
    async fn set_aside_alone(&self, digest: &Digest, until: Option<Until>) -> Result<bool, SourceError> {
        let mut attempts = 0;
        let alone = loop {
            match self.leases.exclude(digest) {
                Some(alone) => break alone,
                None if attempts == ATTEMPTS => {
                    tracing::info!(%digest, "bytes that look damaged are in use: the next pass looks again");
                    return Ok(false);
                }
                None => attempts += 1,
            }
            tokio::time::sleep(RETRY).await;
        };
        let (store, digest) = (self.store.clone(), digest.clone());
        // Work on the disk that has begun does not stop, and nobody may get a lease before it is done.
        let work = tokio::spawn(async move {
            let _alone = alone;
            let Finding::Damaged(problem) = examine(store.as_ref(), &digest, None, |_| {}).await? else {
                return Ok(false);
            };
            if until.is_some_and(|until| !until.counts()) {
                tracing::info!(%digest, "bytes are damaged, and it took too long to see it: the next pass looks again");
                return Ok(false);
            }
            store.quarantine_blob(&digest).await?;
            tracing::warn!(%digest, problem, "stored bytes were damaged, and are set aside in the quarantine");
            Ok(true)
        });
        work.await.unwrap_or_else(|error| {
            let attempted = "set damaged bytes aside: its task ended early";
            Err(SourceError::caused_by(SourceErrorKind::Storage, attempted, error))
        })
    }
}
