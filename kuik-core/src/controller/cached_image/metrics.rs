//! What the reconciler counts. The names are those that dashboards of kuik read.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Registries beyond so many are counted together: their names come from pods, and a series is for ever.
const MAX_REGISTRIES: usize = 200;

/// The counters of what is put into the cache and removed from it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    // A counter whose name has never ended in `_total`, which the library would put there.
    requests: Family<Labels, Gauge>,
    put: Counter,
    removed: Counter,
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
            "Attempts to put an image into the cache, by outcome and by the registry that it comes from",
            self.requests.clone(),
        );
        registry.register("image_put_in_cache", "Images that were put into the cache", self.put.clone());
        registry.register(
            "image_removed_from_cache",
            "Images that were removed from the cache",
            self.removed.clone(),
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

    fn request(&self, registry: &str, successful: bool) {
        let mut known = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
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
