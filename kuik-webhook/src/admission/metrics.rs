//! Metrics of the webhook: reviews, decisions about images, and latency.
//!
//! Every label is bounded: its values are constants of this crate or static labels of the rewrite policy.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// Histogram buckets in seconds: fine for fast reviews, up to the timeout of API servers.
const LATENCY_BUCKETS: [f64; 10] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 1.0, 10.0];

/// The webhook's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdmissionMetrics {
    reviews: Family<Review, Counter>,
    images: Family<Image, Counter>,
    latency: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Review {
    resource: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Image {
    decision: &'static str,
    reason: &'static str,
}

impl Default for AdmissionMetrics {
    fn default() -> Self {
        Self {
            reviews: Family::default(),
            images: Family::default(),
            latency: Histogram::new(LATENCY_BUCKETS),
        }
    }
}

impl AdmissionMetrics {
    /// Registers the metrics. `registry` is expected to have the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("webhook");
        let help = "Admission reviews, by resource and outcome";
        registry.register("reviews", help, self.reviews.clone());
        let help = "Images of created and updated pods, by decision and reason; without dry runs";
        registry.register("images", help, self.images.clone());
        let help = "Time from the complete request to the response";
        registry.register("review_duration_seconds", help, self.latency.clone());
    }

    pub(super) fn reviewed(&self, resource: &'static str, outcome: &'static str, reason: &'static str) {
        self.reviews.get_or_create(&Review { resource, outcome, reason }).inc();
    }

    pub(super) fn image(&self, decision: &'static str, reason: &'static str) {
        self.images.get_or_create(&Image { decision, reason }).inc();
    }

    pub(super) fn responded(&self, after: Duration) {
        self.latency.observe(after.as_secs_f64());
    }
}
