//! Response durations of pulls and pushes: until the headers, and until the last byte.

use std::{hash::Hash, time::Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::Account;

/// Buckets of the time until headers, in seconds: from memory, from a disk, from another registry, near the deadline.
const UNTIL_HEADERS: [f64; 12] =
    [0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 20.0];

/// Buckets of the time until the last byte, in seconds.
const UNTIL_END: [f64; 12] = [0.000_5, 0.002_5, 0.01, 0.05, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// Durations of responses with the labels `L`. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Durations<L> {
    until_headers: Family<L, Histogram, fn() -> Histogram>,
    until_end: Family<L, Histogram, fn() -> Histogram>,
}

impl<L: Clone + Hash + Eq> Default for Durations<L> {
    fn default() -> Self {
        Self {
            until_headers: Family::new_with_constructor(|| Histogram::new(UNTIL_HEADERS)),
            until_end: Family::new_with_constructor(|| Histogram::new(UNTIL_END)),
        }
    }
}

impl<L: Clone + std::fmt::Debug + Hash + Eq + EncodeLabelSet + Send + Sync + 'static> Durations<L> {
    /// Registers the histograms in the component's registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "headers_duration_seconds",
            "Time from a request to the headers of its response",
            self.until_headers.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time from a request to the last byte of its response, or to the client's disconnect",
            self.until_end.clone(),
        );
    }

    /// Counts a response whose headers are complete, to a request that `began` then; the returned account counts its
    /// body, its bytes in `sent`.
    pub(crate) fn count(&self, labels: &L, sent: Counter, began: Instant) -> Account {
        self.until_headers.get_or_create(labels).observe(began.elapsed().as_secs_f64());
        Account { sent, until_end: self.until_end.get_or_create_owned(labels), began }
    }
}
