//! Runs at intervals, and what is counted of them. The binary spawns the future; nothing here spawns.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{Collector, GcError, GcOptions, GcReport};

/// What is counted of the runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct GcMetrics {
    runs: Counter,
    failed: Counter,
    reclaimed: Counter,
    last: Gauge<f64, AtomicU64>,
    purged: Counter,
}

impl GcMetrics {
    /// Registers the counters. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("registry_gc");
        registry.register("runs", "Runs of garbage collection that ended well", self.runs.clone());
        registry.register("failed_runs", "Runs of garbage collection that ended early", self.failed.clone());
        registry.register("reclaimed_bytes", "Bytes that were given back", self.reclaimed.clone());
        registry.register("purged_uploads", "Uploads that were given up", self.purged.clone());
        registry.register("last_duration_seconds", "How long the last run took", self.last.clone());
    }

    /// Counts a run that was not a dry one.
    pub fn count(&self, outcome: &Result<GcReport, GcError>) {
        match outcome {
            Ok(report) => {
                self.runs.inc();
                self.reclaimed.inc_by(report.reclaimed_bytes);
                self.last.set(report.took.as_secs_f64());
            }
            Err(GcError::Running) => {}
            Err(_) => {
                self.failed.inc();
            }
        }
    }
}

/// Runs at intervals.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// What runs.
    pub collector: Collector,
    /// What it collects.
    pub options: GcOptions,
    /// From the end of one run to the beginning of the next; the first begins when this has passed once.
    pub interval: Duration,
    /// Uploads that nothing was appended to for so long are given up before each run.
    pub upload_idle: Duration,
    /// What is counted of it.
    pub metrics: GcMetrics,
}

impl Schedule {
    async fn purge(&self, now: SystemTime) {
        let idle_since = now.checked_sub(self.upload_idle).unwrap_or(SystemTime::UNIX_EPOCH);
        match self.collector.store().purge_uploads(idle_since).await {
            Ok(0) => {}
            Ok(purged) => {
                self.metrics.purged.inc_by(purged);
                tracing::info!(purged, "idle uploads are given up");
            }
            Err(error) => tracing::warn!(error = error.chain(), "idle uploads are not given up"),
        }
    }

    /// Runs for as long as the future is polled. A run that fails is logged, and the next one comes in its time.
    pub async fn run(self) -> ! {
        loop {
            tokio::time::sleep(self.interval).await;
            self.purge(SystemTime::now()).await;
            let outcome = self.collector.run(&self.options, |_| {}).await;
            self.metrics.count(&outcome);
            match outcome {
                Ok(report) => tracing::info!(
                    kept = report.kept,
                    removed = report.removed,
                    reclaimed_bytes = report.reclaimed_bytes,
                    took = ?report.took,
                    "garbage collected"
                ),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "garbage not collected");
                }
            }
        }
    }
}
