//! What keeps a registry's store small and sound while it serves: a quota, the
//! verification of what is stored, and the collection of garbage.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kuik_core::content::{ContentStore, ManagedStore};
use kuik_proxy::{
    gc::{Collector, GcMetrics, GcService, Leased, Leases, Schedule},
    pull_through::{PullThrough, Told},
    quota::{Limited, Pulls, Quota, QuotaMetrics, Usage},
    scrub::{ScrubMetrics, ScrubSchedule, Scrubber},
};
use prometheus_client::registry::Registry;

use crate::{
    config::{gc::GcConfig, quota::QuotaConfig, scrub::ScrubConfig},
    registry::Kept,
};

/// Images of which something was written more recently stay: the times of files are a clock tick behind.
const SETTLE: Duration = Duration::from_millis(100);

/// The same where other processes write to the store too: longer than they take to name what they wrote.
const SETTLE_SHARED: Duration = Duration::from_secs(600);

/// How long the pulls that no note knows of may take to be written at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// What keeps a store small and sound.
#[derive(Debug)]
pub struct Keeping {
    /// The store that everybody else uses, for what is pushed.
    pub pushed: Leased<Arc<dyn ManagedStore>>,
    /// The same store for what can be fetched again.
    pub fetched: Arc<dyn ContentStore>,
    /// Whether clients get blobs from where they are kept.
    pub redirects: bool,
    /// The same, under everybody's leases: what keeps it uses this.
    store: Arc<dyn ManagedStore>,
    /// Who relies on what.
    leases: Leases,
    /// What was pulled.
    pub pulls: Arc<Pulls>,
    usage: Usage,
    quota_metrics: QuotaMetrics,
    scrub_metrics: ScrubMetrics,
    scrub: Option<ScrubConfig>,
    settle: Duration,
    gc_metrics: GcMetrics,
    gc: GcConfig,
}

impl Keeping {
    /// Puts what counts and leases in front of `store`.
    #[must_use]
    pub fn of(store: Kept, quota: QuotaConfig, scrub: Option<ScrubConfig>, gc: GcConfig) -> Self {
        let quota_metrics = QuotaMetrics::default();
        let (leases, settle) = match store.announcements {
            Some(announcements) => (Leases::shared(announcements, gc.notice), SETTLE_SHARED),
            None => (Leases::default(), SETTLE),
        };
        let usage = Usage::new(quota.max_bytes, quota_metrics.clone());
        let pushed: Arc<dyn ManagedStore> = Arc::new(Limited::new(store.pushed, usage.clone()));
        let fetched = Limited::new(store.fetched, usage.clone());
        Self {
            pushed: Leased::new(pushed.clone(), leases.clone()),
            fetched: Arc::new(Leased::new(fetched, leases.clone())),
            redirects: store.redirects,
            store: pushed,
            leases,
            pulls: Arc::default(),
            usage,
            quota_metrics,
            scrub_metrics: ScrubMetrics::default(),
            scrub,
            settle,
            gc_metrics: GcMetrics::default(),
            gc,
        }
    }

    /// Registers what it counts.
    pub fn register(&self, registry: &mut Registry) {
        self.quota_metrics.register(registry);
        self.scrub_metrics.register(registry);
        self.gc_metrics.register(registry);
    }

    /// Collects garbage, of which a cache in front of the store hears.
    fn collector(&self, cache: Option<PullThrough>) -> Collector {
        Collector::new(Arc::new(Told::new(self.store.clone(), cache)), self.leases.clone())
    }

    /// `registry`, and garbage collection when somebody asks for it.
    pub fn collecting<S>(&self, cache: Option<PullThrough>, registry: S) -> GcService<S> {
        GcService::new(self.collector(cache), self.gc.options.clone(), self.gc_metrics.clone(), registry)
    }

    /// What is to run while the registry serves. `cache` is the cache in front of the store, where there is one.
    #[must_use]
    pub fn tasks(&self, cache: Option<PullThrough>) -> Vec<BoxFuture<'static, ()>> {
        let quota = Quota {
            store: self.store.clone(),
            usage: self.usage.clone(),
            pulls: self.pulls.clone(),
            metrics: self.quota_metrics.clone(),
            collector: self.collector(cache.clone()),
            leases: self.leases.clone(),
            garbage: self.gc.options.clone(),
            settle: self.settle,
            cache: cache.clone(),
        };
        let mut tasks: Vec<BoxFuture<'static, ()>> = vec![Box::pin(async { quota.run().await })];
        if let Some(ScrubConfig { interval, rate }) = self.scrub {
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

    /// Writes down what was pulled since the last time, for the end of the process.
    pub async fn end(&self) {
        let flushed = tokio::time::timeout(FLUSH, self.pulls.flush(self.store.as_ref())).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("the last pulls could not be written down");
        }
    }
}
