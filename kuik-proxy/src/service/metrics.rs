//! Proxy metrics. Their names are those of kuik's existing dashboards.

use std::{collections::HashSet, sync::Arc, time::Instant};

use http::StatusCode;
use kuik_core::content::CacheStatus;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{Account, Durations};

/// Maximum number of registries with their own series: names come from requests, and a series is permanent.
const MAX_REGISTRIES: usize = 200;

/// Label of all further registries.
const OTHER: &str = "other";

/// The proxy's counters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ProxyMetrics {
    requests: Family<RequestLabels, Counter>,
    stale: Family<RegistryLabels, Counter>,
    durations: Durations<OutcomeLabels>,
    sent: Family<RegistryLabels, Counter>,
    registries: Arc<Mutex<HashSet<Box<str>>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "label names are those of the existing metric")]
struct RequestLabels {
    registry: String,
    statusCode: u16,
    cacheHit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegistryLabels {
    registry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    result: &'static str,
}

/// Cache result of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Hit,
    Stale,
    Miss,
}

impl From<CacheStatus> for Outcome {
    fn from(status: CacheStatus) -> Self {
        match status {
            CacheStatus::Cache => Self::Hit,
            CacheStatus::Stale(_) => Self::Stale,
            _ => Self::Miss,
        }
    }
}

impl ProxyMetrics {
    /// Registers the counters. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("proxy");
        registry.register(
            "http_requests",
            "Requests for manifests, blobs, tags and referrers by registry",
            self.requests.clone(),
        );
        registry.register(
            "stale_served",
            "Manifests served stale because revalidation upstream failed",
            self.stale.clone(),
        );
        self.durations.register(registry);
        registry.register("sent_bytes", "Bytes of response bodies by registry", self.sent.clone());
    }

    /// Counts a response whose headers are complete; the returned account counts its body.
    pub(super) fn count(
        &self,
        registry: &str,
        status: StatusCode,
        outcome: Outcome,
        began: Instant,
    ) -> Account {
        // Clients of forbidden content choose the name; it must not fill the table.
        let registry = match status {
            StatusCode::FORBIDDEN => self.known(registry),
            _ => self.bounded(registry),
        };
        if outcome == Outcome::Stale {
            self.stale.get_or_create(&RegistryLabels { registry: registry.clone() }).inc();
        }
        let result = match outcome {
            _ if !status.is_success() && !status.is_redirection() => "refused",
            Outcome::Hit => "hit",
            Outcome::Stale => "stale",
            Outcome::Miss => "miss",
        };
        let sent = self.sent.get_or_create_owned(&RegistryLabels { registry: registry.clone() });
        let account = self.durations.count(&OutcomeLabels { result }, sent, began);
        let hit = if outcome == Outcome::Miss { "false" } else { "true" };
        let labels = RequestLabels { registry, statusCode: status.as_u16(), cacheHit: hit.to_owned() };
        self.requests.get_or_create(&labels).inc();
        account
    }

    fn known(&self, registry: &str) -> String {
        let known = self.registries.lock();
        if known.contains(registry) { registry.to_owned() } else { OTHER.to_owned() }
    }

    fn bounded(&self, registry: &str) -> String {
        let mut known = self.registries.lock();
        if known.contains(registry) {
            return registry.to_owned();
        }
        if known.len() < MAX_REGISTRIES {
            known.insert(registry.into());
            return registry.to_owned();
        }
        OTHER.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &ProxyMetrics) -> String {
        let mut registry = Registry::with_prefix("kube_image_keeper");
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn metric_names_match_existing_dashboards() {
        let metrics = ProxyMetrics::default();
        metrics.count("docker.io", StatusCode::OK, Outcome::Hit, Instant::now());
        metrics.count("docker.io", StatusCode::OK, Outcome::Stale, Instant::now());
        let text = text(&metrics);
        let series = r#"kube_image_keeper_proxy_http_requests_total{registry="docker.io",statusCode="200",cacheHit="true"} 2"#;
        assert!(text.contains(series), "{text}");
        assert!(
            text.contains(r#"kube_image_keeper_proxy_stale_served_total{registry="docker.io"} 1"#),
            "{text}"
        );
    }

    #[test]
    fn number_of_series_is_bounded() {
        let metrics = ProxyMetrics::default();
        for n in 0..10 * MAX_REGISTRIES {
            metrics.count(
                &format!("registry-{n}.example"),
                StatusCode::NOT_FOUND,
                Outcome::Miss,
                Instant::now(),
            );
        }
        assert_eq!(
            text(&metrics).lines().filter(|line| line.contains("http_requests_total{")).count(),
            MAX_REGISTRIES + 1
        );
    }
}
