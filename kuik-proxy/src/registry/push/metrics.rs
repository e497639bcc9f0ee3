//! Registry metrics: requests, bytes, uploads, cache hits and durations.
//!
//! Every label has few values, all of them from this file or from `operation`: requests cannot create series. A
//! request costs a few table lookups and no allocation.

use std::time::Instant;

use http::StatusCode;
use kuik_core::content::CacheStatus;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::service::{Account, Durations};

/// The registry's counters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RegistryMetrics {
    requests: Family<Labels, Counter>,
    durations: Durations<Operation>,
    look_ups: Family<LookUp, Counter>,
    pub(super) received: Counter,
    sent: Counter,
    pub(super) uploads: Gauge,
    ended_uploads: Family<Ended, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookUp {
    kind: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

impl RegistryMetrics {
    /// Registers the counters. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("registry");
        registry.register(
            "requests",
            "Requests by operation and outcome (ok, refused, failed)",
            self.requests.clone(),
        );
        self.durations.register(registry);
        registry.register(
            "lookups",
            "Manifests and blobs served, by kind and cache result",
            self.look_ups.clone(),
        );
        registry.register("received_bytes", "Bytes of request bodies", self.received.clone());
        registry.register("sent_bytes", "Bytes of response bodies", self.sent.clone());
        registry.register("uploads_in_flight", "Blob uploads in flight", self.uploads.clone());
        registry.register(
            "uploads",
            "Finished, canceled and failed blob uploads",
            self.ended_uploads.clone(),
        );
    }

    /// Counts a response whose headers are complete; the returned account counts its body.
    pub(super) fn count(
        &self,
        operation: &'static str,
        status: StatusCode,
        cache_status: Option<CacheStatus>,
        began: Instant,
    ) -> Account {
        let outcome = match status.as_u16() {
            ..400 => "ok",
            400..500 => "refused",
            _ => "failed",
        };
        self.requests.get_or_create(&Labels { operation, outcome }).inc();
        if let (Some(kind), Some(result)) = (kind(operation), cache_status.map(result)) {
            self.look_ups.get_or_create(&LookUp { kind, result }).inc();
        }
        if let Some(outcome) = ended(operation, outcome) {
            self.ended_uploads.get_or_create(&Ended { outcome }).inc();
        }
        self.durations.count(&Operation { operation }, self.sent.clone(), began)
    }
}

fn kind(operation: &'static str) -> Option<&'static str> {
    match operation {
        "manifest_pull" => Some("manifest"),
        "blob_pull" => Some("blob"),
        _ => None,
    }
}

fn result(status: CacheStatus) -> &'static str {
    match status {
        CacheStatus::Cache => "hit",
        CacheStatus::Stale(_) => "stale",
        _ => "miss",
    }
}

/// Returns the outcome of an upload, if this request ended it.
fn ended(operation: &str, outcome: &str) -> Option<&'static str> {
    match (operation, outcome) {
        ("upload_whole" | "upload_finish", "ok") => Some("finished"),
        ("upload_cancel", "ok") => Some("canceled"),
        ("upload_whole" | "upload_finish" | "upload_chunk", "refused" | "failed") => Some("failed"),
        _ => None,
    }
}
