//! Maintenance of a registry's store while it serves: the size limit, retention, integrity scrubbing, and garbage
//! collection.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kuik_core::content::{ContentStore, RegistryStore};
use prometheus_client::registry::Registry;

use crate::{
    maintenance::{
        gc::{
            Collector, GcLayer, GcMetrics, GcOptions, LeasedStore, Leases, NoticePeriod, RemovalIntents,
            Schedule,
        },
        quota::{
            CapacityLayer, Pulls, PushRecorder, Quota, QuotaMetrics, QuotaStore, UnmanagedExpiry, Usage,
        },
        retention::{RetentionIndex, RetentionMetrics, RetentionOptions},
        scrub::{ScrubMetrics, ScrubSchedule, Scrubber},
    },
    pull_through::{InvalidatingStore, PullThrough},
};

/// Images written to more recently than this are not evicted: file times are a clock tick behind.
const SETTLE: Duration = Duration::from_millis(100);

/// The same if other processes write to the store too: longer than they take to publish a manifest for a blob.
const SETTLE_SHARED: Duration = Duration::from_secs(600);

/// Time limit for flushing recent pulls at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// The store of a registry.
#[derive(Debug, Clone)]
pub struct Storage {
    /// For content that is pushed: a write is durable when it is acknowledged.
    pub pushed: Arc<dyn RegistryStore>,
    /// The same store for content that can be fetched again.
    pub fetched: Arc<dyn ContentStore>,
    /// Whether clients are redirected to the storage of blobs, if it has an address for them.
    pub redirects: bool,
    /// Announcements of removals, for processes that share the store; `None` if this process owns the store.
    pub announcements: Option<Arc<dyn RemovalIntents>>,
}

/// Options of [`StoreMaintenance`]. The default collects every six hours, and neither limits the size nor lets
/// images expire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaintenanceOptions {
    /// Size limit in bytes; without one, the disk is the limit.
    pub max_bytes: Option<u64>,
    /// When images expire that no cluster manages; without it, never.
    pub unmanaged: Option<UnmanagedExpiry>,
    /// How long the retention document of a cluster counts that does not renew it.
    pub retention_lapse: RetentionLapse,
    /// Integrity scrubbing, if wanted.
    pub scrub: Option<ScrubPlan>,
    /// Garbage collection.
    pub gc: GcPlan,
}

/// How long the retention document of a cluster counts that does not renew it. 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionLapse(pub Duration);

impl Default for RetentionLapse {
    fn default() -> Self {
        Self(RetentionOptions::default().lapse)
    }
}

/// When stored content is verified against its digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubPlan {
    /// From the end of one pass to the start of the next.
    pub interval: Duration,
    /// Upper bound of the read rate, in bytes per second.
    pub rate: NonZeroU64,
}

/// When garbage is collected, and what counts as garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcPlan {
    /// From one run to the next; `None` is never.
    pub interval: Option<Duration>,
    /// Kinds of garbage that a run removes.
    pub options: GcOptions,
    /// How long before a removal the other processes on the store are notified.
    pub notice: NoticePeriod,
    /// Age at which an idle upload is abandoned.
    pub upload_idle: Duration,
}

impl GcPlan {
    /// A run walks the whole store, so it is rare; a process that restarts every day still collects.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(6 * 3600);
    /// As in Docker's registry.
    pub const DEFAULT_UPLOAD_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
    /// Long enough for a storage provider that takes seconds to respond.
    pub const DEFAULT_NOTICE: Duration = Duration::from_secs(30);
}

impl Default for GcPlan {
    fn default() -> Self {
        Self {
            interval: Some(Self::DEFAULT_INTERVAL),
            options: GcOptions::default(),
            notice: NoticePeriod::new(Self::DEFAULT_NOTICE),
            upload_idle: Self::DEFAULT_UPLOAD_IDLE,
        }
    }
}

/// The store of a registry with its maintenance.
#[derive(Debug)]
pub struct StoreMaintenance {
    /// The store for pushes, guarded by leases.
    pub pushed: LeasedStore<Arc<dyn RegistryStore>>,
    /// The same store for content that can be fetched again.
    pub fetched: Arc<dyn ContentStore>,
    /// Whether clients are redirected to the storage.
    pub redirects: bool,
    /// The same store below the leases, for maintenance itself.
    store: Arc<dyn RegistryStore>,
    /// Content that running requests use.
    leases: Leases,
    /// Recent pulls, not yet written to the store.
    pub pulls: Arc<Pulls>,
    /// Retention documents of clusters.
    pub retention: RetentionIndex,
    unmanaged: Option<UnmanagedExpiry>,
    retention_metrics: RetentionMetrics,
    usage: Usage,
    quota_metrics: QuotaMetrics,
    scrub_metrics: ScrubMetrics,
    scrub: Option<ScrubPlan>,
    settle: Duration,
    gc_metrics: GcMetrics,
    gc: GcPlan,
}

impl StoreMaintenance {
    /// Puts usage accounting and leases in front of `store`.
    #[must_use]
    pub fn new(store: Storage, options: MaintenanceOptions) -> Self {
        let MaintenanceOptions { max_bytes, unmanaged, retention_lapse, scrub, gc } = options;
        let retention_options =
            RetentionOptions { lapse: retention_lapse.0, is_shared: store.announcements.is_some() };
        let quota_metrics = QuotaMetrics::default();
        let (leases, settle) = match store.announcements {
            Some(announcements) => (Leases::shared(announcements, gc.notice), SETTLE_SHARED),
            None => (Leases::default(), SETTLE),
        };
        let retention_metrics = RetentionMetrics::default();
        let usage = Usage::new(max_bytes, quota_metrics.clone());
        let limited: Arc<dyn RegistryStore> = Arc::new(QuotaStore::new(store.pushed, usage.clone()));
        let pushed: Arc<dyn RegistryStore> = Arc::new(PushRecorder::new(limited.clone()));
        let fetched = QuotaStore::new(store.fetched, usage.clone());
        Self {
            pushed: LeasedStore::new(pushed, leases.clone()),
            fetched: Arc::new(LeasedStore::new(fetched, leases.clone())),
            redirects: store.redirects,
            retention: RetentionIndex::new(limited.clone(), retention_options, retention_metrics.clone()),
            store: limited,
            leases,
            pulls: Arc::default(),
            unmanaged,
            retention_metrics,
            usage,
            quota_metrics,
            scrub_metrics: ScrubMetrics::default(),
            scrub,
            settle,
            gc_metrics: GcMetrics::default(),
            gc,
        }
    }

    /// Registers the metrics of maintenance.
    pub fn register(&self, registry: &mut Registry) {
        self.quota_metrics.register(registry);
        self.retention_metrics.register(registry);
        self.scrub_metrics.register(registry);
        self.gc_metrics.register(registry);
    }

    /// Returns a collector whose deletes invalidate the cache in front of the store.
    fn collector(&self, cache: Option<PullThrough>) -> Collector {
        Collector::new(Arc::new(InvalidatingStore::new(self.store.clone(), cache)), self.leases.clone())
    }

    /// Returns the layer with the endpoint that runs a collection on request. `cache` is the cache in front of the
    /// store, if there is one.
    #[must_use]
    pub fn gc_layer(&self, cache: Option<PullThrough>) -> GcLayer {
        GcLayer::new(self.collector(cache), self.gc.options.clone(), self.gc_metrics.clone())
    }

    /// Returns the layer with the endpoint that tells whether the store has room.
    #[must_use]
    pub fn capacity_layer(&self) -> CapacityLayer {
        CapacityLayer::new(self.usage.clone(), self.store.clone(), self.retention.clone())
    }

    /// Returns the background tasks that run while the registry serves. `cache` is the cache in front of the store, if
    /// there is one.
    #[must_use]
    pub fn tasks(&self, cache: Option<PullThrough>) -> Vec<BoxFuture<'static, ()>> {
        let quota = Quota {
            store: self.store.clone(),
            usage: self.usage.clone(),
            pulls: self.pulls.clone(),
            retention: self.retention.clone(),
            unmanaged: self.unmanaged,
            metrics: self.quota_metrics.clone(),
            collector: self.collector(cache.clone()),
            leases: self.leases.clone(),
            garbage: self.gc.options.clone(),
            settle: self.settle,
            cache: cache.clone(),
        };
        let retention = self.retention.clone();
        let mut tasks: Vec<BoxFuture<'static, ()>> =
            vec![Box::pin(async { retention.run().await }), Box::pin(async { quota.run().await })];
        if let Some(ScrubPlan { interval, rate }) = self.scrub {
            let (store, leases) = (self.store.clone(), self.leases.clone());
            let scrubber = Scrubber::new(store, leases, rate, self.scrub_metrics.clone());
            let schedule = ScrubSchedule { scrubber, interval };
            tasks.push(Box::pin(async { schedule.run().await }));
        }
        if let Some(interval) = self.gc.interval {
            let schedule = Schedule {
                collector: self.collector(cache),
                options: self.gc.options.clone(),
                interval,
                upload_idle: self.gc.upload_idle,
                metrics: self.gc_metrics.clone(),
            };
            tasks.push(Box::pin(async { schedule.run().await }));
        }
        tasks
    }

    /// Flushes recent pulls to the store, at the end of the process.
    pub async fn end(&self) {
        let flushed = tokio::time::timeout(FLUSH, self.pulls.flush(self.store.as_ref())).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("recent pulls could not be written to the store");
        }
    }
}
