//! Scheduled garbage collection and its metrics. The binary spawns the future; this module spawns nothing.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{Collector, GcError, GcOptions, GcReport};

/// Metrics of the runs. Cheap to clone.
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
        registry.register("runs", "Garbage collection runs that succeeded", self.runs.clone());
        registry.register("failed_runs", "Garbage collection runs that failed", self.failed.clone());
        registry.register("reclaimed_bytes", "Bytes reclaimed by garbage collection", self.reclaimed.clone());
        registry.register("purged_uploads", "Idle uploads canceled", self.purged.clone());
        registry.register("last_duration_seconds", "Duration of the last run", self.last.clone());
    }

    /// Counts a run; not for dry runs.
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

/// Garbage collection at intervals.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Collector to run.
    pub collector: Collector,
    /// Options of each run.
    pub options: GcOptions,
    /// From the end of one run to the beginning of the next; the first begins after one interval.
    pub interval: Duration,
    /// Uploads idle for this long are canceled before each run.
    pub upload_idle: Duration,
    /// Metrics of the runs.
    pub metrics: GcMetrics,
}

impl Schedule {
    async fn purge(&self, now: SystemTime) {
        let idle_since = now.checked_sub(self.upload_idle).unwrap_or(SystemTime::UNIX_EPOCH);
        match self.collector.store().purge_uploads(idle_since).await {
            Ok(0) => {}
            Ok(purged) => {
                self.metrics.purged.inc_by(purged);
                tracing::info!(purged, "canceled idle uploads");
            }
            Err(error) => tracing::warn!(
                error = error.chain(),
                "cannot cancel idle uploads, retrying before the next run"
            ),
        }
    }

    /// Runs for as long as the future is polled. A failed run is logged, and the next one starts on schedule.
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
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "garbage collection failed, retrying at the next interval"
                    );
                }
            }
        }
    }
}
