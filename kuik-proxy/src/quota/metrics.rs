//! What is known of the store's size, and counted of evictions.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What is known of the store's size, and counted of evictions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct QuotaMetrics {
    pub(super) size: Gauge<u64, AtomicU64>,
    pub(super) limit: Gauge<u64, AtomicU64>,
    pub(super) free: Gauge<u64, AtomicU64>,
    pub(super) refused: Counter,
    pub(super) evicted_bytes: Counter,
    evicted: Family<Why, Counter>,
    pub(super) failed: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

impl QuotaMetrics {
    /// Registers them. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("registry");
        registry.register("store_size_bytes", "Bytes of content that are kept", self.size.clone());
        registry.register("store_limit_bytes", "Bytes that may be kept; 0 is any number", self.limit.clone());
        registry.register(
            "store_free_bytes",
            "Bytes that the disk can still take; 0 where nobody knows",
            self.free.clone(),
        );
        registry.register("quota_refused", "Writes for which there was no room", self.refused.clone());
        registry.register(
            "quota_evicted_bytes",
            "Bytes of images that were evicted",
            self.evicted_bytes.clone(),
        );
        registry.register("quota_evicted_images", "Images that were evicted", self.evicted.clone());
        registry.register("quota_failed", "Counts and evictions that the store cut off", self.failed.clone());
    }

    pub(super) fn evicted(&self, expired: bool) {
        let reason = if expired { "expired" } else { "unused" };
        self.evicted.get_or_create(&Why { reason }).inc();
    }
}
