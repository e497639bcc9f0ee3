//! Metrics of retention documents.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Metrics of retention documents. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RetentionMetrics {
    clusters: Family<ClusterLabels, Gauge<u64, AtomicU64>>,
    pub(super) images: Gauge<u64, AtomicU64>,
    pub(super) failed: Counter,
    pub(super) kept_tags: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabels {
    state: &'static str,
}

impl RetentionMetrics {
    /// Registers the metrics. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("registry_retention");
        registry.register(
            "clusters",
            "Clusters with a retention document, by its state",
            self.clusters.clone(),
        );
        registry.register("images", "Images in the retention documents that count", self.images.clone());
        registry.register(
            "failed",
            "Reads and writes of retention documents in the store that failed",
            self.failed.clone(),
        );
        registry.register(
            "kept_tags",
            "Deletions of tags refused because another cluster has the tag in its retention document",
            self.kept_tags.clone(),
        );
    }

    /// Sets the number of documents that count, have lapsed, and are damaged.
    pub(super) fn set_clusters(&self, live: u64, lapsed: u64, damaged: u64) {
        for (state, count) in [("live", live), ("lapsed", lapsed), ("damaged", damaged)] {
            self.clusters.get_or_create(&ClusterLabels { state }).set(count);
        }
    }
}
