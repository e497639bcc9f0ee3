//! What the webhook counts: reviews, what became of the images in them, and how long an answer takes.
//!
//! Every label has few values, all of them from this crate and from the reasons of the rewrite policy.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// Up to when the answer is there, in seconds: at once, and near what API servers wait for.
const UNTIL_ANSWERED: [f64; 10] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 1.0, 10.0];

/// The webhook's counters. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdmissionMetrics {
    reviews: Family<Review, Counter>,
    images: Family<Image, Counter>,
    until_answered: Histogram,
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
            until_answered: Histogram::new(UNTIL_ANSWERED),
        }
    }
}

impl AdmissionMetrics {
    /// Registers the counters. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("webhook");
        let help = "Admission reviews, by what they were about and what was answered";
        registry.register("reviews", help, self.reviews.clone());
        let help =
            "Images of pods that were made or changed, by what became of them and why; without dry runs";
        registry.register("images", help, self.images.clone());
        let help = "From the whole request to its answer";
        registry.register("answer_duration_seconds", help, self.until_answered.clone());
    }

    pub(super) fn reviewed(&self, resource: &'static str, outcome: &'static str, reason: &'static str) {
        self.reviews.get_or_create(&Review { resource, outcome, reason }).inc();
    }

    pub(super) fn image(&self, decision: &'static str, reason: &'static str) {
        self.images.get_or_create(&Image { decision, reason }).inc();
    }

    pub(super) fn answered(&self, after: Duration) {
        self.until_answered.observe(after.as_secs_f64());
    }
}
