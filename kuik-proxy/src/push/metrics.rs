//! What a registry counts: requests, bytes, uploads, hits, and how long it takes.
//!
//! Every label has few values, all of them from this file or from `operation`: no request can make a series. A request
//! costs a few look-ups in tables and no allocation.

use std::time::Instant;

use http::StatusCode;
use kuik_core::content::Origin;
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
            "Requests by what they ask for, and whether it was done, refused, or failed",
            self.requests.clone(),
        );
        self.durations.register(registry);
        registry.register(
            "lookups",
            "Manifests and blobs that were served, and whether they were here",
            self.look_ups.clone(),
        );
        registry.register("received_bytes", "Bytes of request bodies", self.received.clone());
        registry.register("sent_bytes", "Bytes of response bodies", self.sent.clone());
        registry.register("uploads_in_flight", "Requests that are sending a blob", self.uploads.clone());
        registry.register(
            "uploads",
            "Blobs that were uploaded, and requests of uploads that failed",
            self.ended_uploads.clone(),
        );
    }

    /// Counts an answer whose headers are there; what is returned counts the rest of it.
    pub(super) fn count(
        &self,
        operation: &'static str,
        status: StatusCode,
        origin: Option<Origin>,
        began: Instant,
    ) -> Account {
        let outcome = match status.as_u16() {
            ..400 => "ok",
            400..500 => "refused",
            _ => "failed",
        };
        self.requests.get_or_create(&Labels { operation, outcome }).inc();
        if let (Some(kind), Some(result)) = (kind(operation), origin.map(result)) {
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

fn result(origin: Origin) -> &'static str {
    match origin {
        Origin::Cache => "hit",
        Origin::Stale(_) => "stale",
        _ => "miss",
    }
}

/// What became of an upload, where this request ended it.
fn ended(operation: &str, outcome: &str) -> Option<&'static str> {
    match (operation, outcome) {
        ("upload_whole" | "upload_finish", "ok") => Some("finished"),
        ("upload_cancel", "ok") => Some("cancelled"),
        ("upload_whole" | "upload_finish" | "upload_chunk", "refused" | "failed") => Some("failed"),
        _ => None,
    }
}
