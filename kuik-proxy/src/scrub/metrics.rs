//! What is counted of scrubs, while they go on: a pass may take days.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// What is counted of scrubs. Cheap to clone.
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
        registry.register("passes", "Passes over everything that is stored", self.passes.clone());
        registry.register(
            "interrupted_passes",
            "How often a pass was cut off, to go on later from where it was",
            self.interrupted.clone(),
        );
        registry.register("blobs", "Blobs and manifests that were verified", self.blobs.clone());
        registry.register("bytes", "Bytes that were read to be verified", self.bytes.clone());
        registry.register("damaged", "Blobs and manifests that were set aside", self.damaged.clone());
        registry.register(
            "unreadable",
            "Blobs and manifests that the store could not read",
            self.unreadable.clone(),
        );
        registry.register("last_duration_seconds", "How long the last pass took", self.last_duration.clone());
        registry.register(
            "last_end_timestamp_seconds",
            "When the last pass ended, since the Unix epoch",
            self.last_end.clone(),
        );
    }
}
