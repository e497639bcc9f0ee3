//! Metrics of scrubs, updated during a pass, which may take days.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Metrics of scrubs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ScrubMetrics {
    pub(super) passes: Counter,
    pub(super) interrupted: Counter,
    pub(super) blobs: Counter,
    pub(super) bytes: Counter,
    pub(super) damaged: Counter,
    pub(super) unreadable: Counter,
    pub(super) last_duration: Gauge<f64, AtomicU64>,
    pub(super) last_end: Gauge<f64, AtomicU64>,
}

impl ScrubMetrics {
    /// Registers the counters. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("registry_scrub");
        registry.register("passes", "Completed scrub passes", self.passes.clone());
        registry.register(
            "interrupted_passes",
            "Interrupted scrub passes; each is resumed later",
            self.interrupted.clone(),
        );
        registry.register("blobs", "Blobs and manifests verified", self.blobs.clone());
        registry.register("bytes", "Bytes read for verification", self.bytes.clone());
        registry.register("damaged", "Blobs and manifests quarantined", self.damaged.clone());
        registry.register(
            "unreadable",
            "Blobs and manifests that could not be read",
            self.unreadable.clone(),
        );
        registry.register("last_duration_seconds", "Duration of the last pass", self.last_duration.clone());
        registry.register(
            "last_end_timestamp_seconds",
            "Unix time at which the last pass ended",
            self.last_end.clone(),
        );
    }
}
