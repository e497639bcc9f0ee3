//! One run of the garbage collector: mark, sweep, report.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use kuik_core::content::{RegistryStore, SourceError, SourceErrorKind, StoredBlob};

use super::{
    Key, Leases,
    graph::Graph,
    leases::Run,
    mark,
    peer_intents::ANNOUNCED_AT_ONCE,
    sweep::{AgeFilter, Removable, Sweep},
};

/// Options of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcOptions {
    /// Content written or requested within this period is kept. Default: one hour.
    pub grace: Duration,
    /// Whether to also delete manifests that no tag, index or subject refers to.
    pub delete_untagged: bool,
    /// Whether to only report what would be removed.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { grace: Duration::from_secs(3600), delete_untagged: false, dry_run: false }
    }
}

/// Result of a run; of a dry run, the result it would have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GcReport {
    /// Number of referenced digests, whether their bytes are stored or not.
    pub marked: u64,
    /// Number of blobs and manifests kept.
    pub kept: u64,
    /// Number of blobs and manifests removed.
    pub removed: u64,
    /// Size of the removed content in bytes.
    pub reclaimed_bytes: u64,
    /// Duration of the run.
    pub took: Duration,
}

/// Reason why a run ended early. Everything it had removed was garbage; the next run does the rest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// Another run is in progress.
    #[error("garbage collection is already running")]
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

/// Garbage collector of a store. Cheap to clone.
///
/// ```
/// use std::sync::Arc;
///
/// use kuik_core::content::Digest;
/// use kuik_testkit::MemoryStore;
/// use kuik_proxy::maintenance::gc::{Collector, GcOptions, LeasedStore, Leases};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (store, leases) = (MemoryStore::new(), Leases::default());
/// let collector = Collector::new(Arc::new(store.clone()), leases.clone());
/// // All other users of the store go through this decorator.
/// let store = LeasedStore::new(store, leases);
/// let report = collector.run(&GcOptions::default(), |_| {}).await?;
/// assert_eq!(report.removed, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Collector {
    store: Arc<dyn RegistryStore>,
    leases: Leases,
}

impl Collector {
    /// Creates a collector of `store`, the undecorated one. Every writer to the store uses a
    /// [`LeasedStore`](super::LeasedStore) with the same `leases`. If other processes share the store, each run
    /// announces its removals first and takes that much longer.
    #[must_use]
    pub fn new(store: Arc<dyn RegistryStore>, leases: Leases) -> Self {
        Self { store, leases }
    }

    pub(super) fn store(&self) -> &dyn RegistryStore {
        self.store.as_ref()
    }

    /// Runs once. `gone` is called for everything that is removed, or would be. Dropping the future ends the run at
    /// any point.
    ///
    /// # Errors
    /// Fails if another run is in progress or the store fails.
    pub async fn run(
        &self,
        options: &GcOptions,
        gone: impl FnMut(&StoredBlob) + Send,
    ) -> Result<GcReport, GcError> {
        let old_before = SystemTime::now().checked_sub(options.grace).unwrap_or(SystemTime::UNIX_EPOCH);
        self.sweep(options, AgeFilter { before: old_before, also: None }, options.grace, gone).await
    }

    /// Runs over these digests only, which belonged to something that was deleted on purpose or can be fetched again.
    /// Those that are unreferenced and were written before `written_before` are removed.
    pub(crate) async fn run_on(
        &self,
        digests: &HashSet<Key>,
        written_before: SystemTime,
    ) -> Result<GcReport, GcError> {
        let old = AgeFilter { before: SystemTime::UNIX_EPOCH, also: Some((digests, written_before)) };
        self.sweep(&GcOptions::default(), old, Duration::ZERO, |_| {}).await
    }

    async fn sweep(
        &self,
        options: &GcOptions,
        old: AgeFilter<'_>,
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

    async fn mark(
        &self,
        options: &GcOptions,
        old: AgeFilter<'_>,
        known: Graph,
    ) -> Result<Graph, SourceError> {
        mark::graph(self.store.as_ref(), options.delete_untagged, old.before, known).await
    }

    /// Sweeps a store that other processes use too: each sweep covers only digests announced to them, and marks again
    /// after the announcement.
    async fn announced_sweeps(
        &self,
        run: &Run,
        options: &GcOptions,
        old: AgeFilter<'_>,
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
            let mut sweep = sweep.announced(Removable { keys: &keys, deadline: announced.deadline() });
            sweep.run().await?;
            let (swept, removed_any, in_time) =
                (sweep.report(), sweep.removed_any(), announced.deadline().is_valid());
            announced.withdraw().await;
            (all.marked, all.kept) = (swept.marked, swept.kept);
            all.removed += swept.removed;
            all.reclaimed_bytes += swept.reclaimed_bytes;
            if !in_time && !removed_any {
                let attempted = "remove garbage: the second mark took longer than the notice period; the next run continues";
                return Err(SourceError::new(SourceErrorKind::TimedOut, attempted));
            }
            if (in_time && candidates.complete) || !removed_any {
                return Ok(all);
            }
        }
    }
}
