//! One run: mark, then sweep, and what came of it.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use kuik_core::content::{ManagedStore, SourceError, SourceErrorKind, StoredBlob};

use super::{
    Key, Leases,
    graph::Graph,
    leases::Run,
    mark,
    peers::ANNOUNCED_AT_ONCE,
    sweep::{Old, Removable, Sweep},
};

/// What is collected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcOptions {
    /// What was written or asked for more recently than so long ago stays. An hour, where nothing else is said.
    pub grace: Duration,
    /// Whether manifests that no tag, index or subject leads to go too.
    pub delete_untagged: bool,
    /// Whether only to say what would go.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { grace: Duration::from_secs(3600), delete_untagged: false, dry_run: false }
    }
}

/// What a run did; what it would have done, where it was a dry one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GcReport {
    /// How many digests are referred to, whether their bytes are here or not.
    pub marked: u64,
    /// How many blobs and manifests stayed.
    pub kept: u64,
    /// How many went.
    pub removed: u64,
    /// How many bytes they had.
    pub reclaimed_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Why a run ended early. What it had removed by then was garbage; the next run does the rest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// Another run goes on.
    #[error("garbage is being collected already")]
    Running,
    /// The store failed.
    #[error("cannot collect garbage")]
    Store(#[source] SourceError),
}

impl From<SourceError> for GcError {
    fn from(error: SourceError) -> Self {
        Self::Store(error)
    }
}

/// Collects the garbage of a store. Cheap to clone.
///
/// ```
/// use std::sync::Arc;
///
/// use kuik_core::{content::Digest, testkit::MemoryStore};
/// use kuik_proxy::gc::{Collector, GcOptions, Leased, Leases};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (store, leases) = (MemoryStore::new(), Leases::default());
/// let collector = Collector::new(Arc::new(store.clone()), leases.clone());
/// // Everybody else uses the store through this.
/// let store = Leased::new(store, leases);
/// let report = collector.run(&GcOptions::default(), |_| {}).await?;
/// assert_eq!(report.removed, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Collector {
    store: Arc<dyn ManagedStore>,
    leases: Leases,
}

impl Collector {
    /// A collector of `store` itself. Whoever writes to the store writes through a [`Leased`](super::Leased) one with
    /// the same `leases`, or in another process that shares them: then each run is announced, and takes that much longer.
    #[must_use]
    pub fn new(store: Arc<dyn ManagedStore>, leases: Leases) -> Self {
        Self { store, leases }
    }

    pub(super) fn store(&self) -> &dyn ManagedStore {
        self.store.as_ref()
    }

    /// One run. `gone` is told of everything that goes, or would go. Dropping the future ends the run at any point.
    ///
    /// # Errors
    /// Where another run goes on, or the store fails.
    pub async fn run(
        &self,
        options: &GcOptions,
        gone: impl FnMut(&StoredBlob) + Send,
    ) -> Result<GcReport, GcError> {
        let old_before = SystemTime::now().checked_sub(options.grace).unwrap_or(SystemTime::UNIX_EPOCH);
        self.sweep(options, Old { before: old_before, also: None }, options.grace, gone).await
    }

    /// One run over these digests alone, which belonged to something that was taken away on purpose, or can be fetched
    /// again: what of them nothing refers to goes, where it was written before `written_before`.
    pub(crate) async fn run_on(
        &self,
        digests: &HashSet<Key>,
        written_before: SystemTime,
    ) -> Result<GcReport, GcError> {
        let old = Old { before: SystemTime::UNIX_EPOCH, also: Some((digests, written_before)) };
        self.sweep(&GcOptions::default(), old, Duration::ZERO, |_| {}).await
    }

    async fn sweep(
        &self,
        options: &GcOptions,
        old: Old<'_>,
        lately: Duration,
        gone: impl FnMut(&StoredBlob) + Send,
    ) -> Result<GcReport, GcError> {
        let began = Instant::now();
        let run = self.leases.begin(lately).ok_or(GcError::Running)?;
        let report = if self.leases.are_shared() && !options.dry_run {
            self.announced_sweeps(&run, options, old, gone).await?
        } else {
            let graph = self.mark(options, old, Graph::default()).await?;
            let mut sweep = Sweep::new(&self.store, &run, &graph, options, old, gone);
            sweep.run().await?;
            sweep.report()
        };
        Ok(GcReport { took: began.elapsed(), ..report })
    }

    async fn mark(&self, options: &GcOptions, old: Old<'_>, known: Graph) -> Result<Graph, SourceError> {
        mark::graph(self.store.as_ref(), options.delete_untagged, old.before, known).await
    }

    /// Sweeps a store that other processes use too: each over what they have been told of, and marked again after that.
    async fn announced_sweeps(
        &self,
        run: &Run,
        options: &GcOptions,
        old: Old<'_>,
        mut gone: impl FnMut(&StoredBlob) + Send,
    ) -> Result<GcReport, SourceError> {
        let (mut all, mut graph) = (GcReport::default(), Graph::default());
        loop {
            graph = self.mark(options, old, graph).await?;
            let dry = GcOptions { dry_run: true, ..options.clone() };
            let sweep = Sweep::new(&self.store, run, &graph, &dry, old, |_| {});
            let candidates = sweep.candidates(ANNOUNCED_AT_ONCE).await?;
            (all.marked, all.kept) = (candidates.report.marked, candidates.report.kept);
            if candidates.digests.is_empty() {
                return Ok(all);
            }
            let Some(announced) = self.leases.announce(&candidates.digests).await? else { return Ok(all) };
            let keys = candidates.digests.iter().map(Key::from).collect();
            graph = self.mark(options, old, graph).await?;
            let sweep = Sweep::new(&self.store, run, &graph, options, old, &mut gone);
            let mut sweep = sweep.announced(Removable { keys: &keys, until: announced.until() });
            sweep.run().await?;
            let (swept, went_on, in_time) = (sweep.report(), sweep.went_on(), announced.until().counts());
            announced.withdraw().await;
            (all.marked, all.kept) = (swept.marked, swept.kept);
            all.removed += swept.removed;
            all.reclaimed_bytes += swept.reclaimed_bytes;
            if !in_time && !went_on {
                let attempted =
                    "remove garbage: to look again what refers to what took longer than other processes wait";
                return Err(SourceError::new(SourceErrorKind::TimedOut, attempted));
            }
            if (in_time && candidates.are_all) || !went_on {
                return Ok(all);
            }
        }
    }
}
