//! What a registry counts: requests by operation and outcome, bytes in and out, uploads in flight.

use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The registry's counters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RegistryMetrics {
    requests: Family<Labels, Counter>,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) uploads: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    outcome: &'static str,
}

impl RegistryMetrics {
    /// Registers the counters. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("registry");
        registry.register(
            "requests",
            "Requests by what they ask for, and whether it was done, refused, or failed",
            self.requests.clone(),
        );
        registry.register("received_bytes", "Bytes of request bodies", self.received.clone());
        registry.register("sent_bytes", "Bytes of response bodies", self.sent.clone());
        registry.register("uploads_in_flight", "Requests that are sending a blob", self.uploads.clone());
    }

    pub(super) fn count(&self, operation: &'static str, status: StatusCode) {
        let outcome = match status.as_u16() {
            ..400 => "ok",
            400..500 => "refused",
            _ => "failed",
        };
        self.requests.get_or_create(&Labels { operation, outcome }).inc();
    }
}
