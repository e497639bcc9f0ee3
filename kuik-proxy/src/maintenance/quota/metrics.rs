//! Metrics of the store's size and of evictions.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Metrics of the store's size and of evictions.
#[derive(Debug, Clone, Default)]
pub struct QuotaMetrics {
    pub(super) size: Gauge<u64, AtomicU64>,
    pub(super) limit: Gauge<u64, AtomicU64>,
    pub(super) free: Gauge<u64, AtomicU64>,
    pub(super) refused: Counter,
    pub(super) evicted_bytes: Counter,
    evicted: Family<EvictionLabels, Counter>,
    pub(super) unmanaged_expired: Counter,
    pub(super) failed: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvictionLabels {
    reason: &'static str,
}

impl QuotaMetrics {
    /// Registers the metrics. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("registry");
        registry.register("store_size_bytes", "Size of the stored content in bytes", self.size.clone());
        registry.register(
            "store_limit_bytes",
            "Size limit of the store in bytes; 0 if unlimited",
            self.limit.clone(),
        );
        registry.register(
            "store_free_bytes",
            "Free space of the volume in bytes; 0 if unknown",
            self.free.clone(),
        );
        registry.register("quota_refused", "Writes refused for lack of space", self.refused.clone());
        registry.register("quota_evicted_bytes", "Bytes freed by evictions", self.evicted_bytes.clone());
        registry.register("quota_evicted_images", "Images evicted, by reason", self.evicted.clone());
        registry.register(
            "unmanaged_expired_images",
            "Unmanaged images removed because they were not pulled for --unmanaged-expiry",
            self.unmanaged_expired.clone(),
        );
        registry.register("quota_failed", "Counts and evictions that failed", self.failed.clone());
    }

    pub(super) fn evicted(&self, reason: &'static str) {
        self.evicted.get_or_create(&EvictionLabels { reason }).inc();
    }
}
