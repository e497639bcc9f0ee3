//! Metrics of the CachedImage controller. The names are those that kuik dashboards read.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Maximum number of registry label values; further ones count as `other`. Names come from pods, and a series is never
/// dropped.
const MAX_REGISTRIES: usize = 200;

/// Counters of images put into the cache and removed from it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    // A counter, but its name must not end in `_total`, which the library appends to counters.
    requests: Family<Labels, Gauge>,
    put: Counter,
    removed: Counter,
    full: Counter,
    registries: Arc<Mutex<HashSet<Box<str>>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    successful: String,
    upstream_registry: String,
}

impl Metrics {
    /// Registers the counters. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("controller");
        registry.register(
            "image_caching_request",
            "Attempts to put an image into the cache, by outcome and upstream registry",
            self.requests.clone(),
        );
        registry.register("image_put_in_cache", "Images put into the cache", self.put.clone());
        registry.register("image_removed_from_cache", "Images removed from the cache", self.removed.clone());
        registry.register(
            "image_cache_full",
            "Images that the cache had no room for, or did not keep",
            self.full.clone(),
        );
    }

    pub(super) fn put(&self, registry: &str) {
        self.put.inc();
        self.request(registry, true);
    }

    pub(super) fn failed(&self, registry: &str) {
        self.request(registry, false);
    }

    pub(super) fn removed(&self) {
        self.removed.inc();
    }

    pub(super) fn full(&self) {
        self.full.inc();
    }

    fn request(&self, registry: &str, successful: bool) {
        let mut known = self.registries.lock();
        let has_room = known.len() < MAX_REGISTRIES;
        let registry = if known.contains(registry) || (has_room && known.insert(registry.into())) {
            registry
        } else {
            "other"
        };
        let labels = Labels { successful: successful.to_string(), upstream_registry: registry.to_owned() };
        self.requests.get_or_create(&labels).inc();
    }
}
