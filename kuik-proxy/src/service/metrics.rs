//! What the proxy counts. The names are those that dashboards of kuik read.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use http::StatusCode;
use kuik_core::content::Origin;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{Account, Durations};

/// Registries beyond so many are counted together: their names come from requests, and a series is for ever.
const MAX_REGISTRIES: usize = 200;

/// What registries are called that are counted together.
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

/// How the cache took part in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Hit,
    Stale,
    Miss,
}

impl From<Origin> for Outcome {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Cache => Self::Hit,
            Origin::Stale(_) => Self::Stale,
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
            "Requests for manifests, blobs, tags and referrers, by the registry that they name",
            self.requests.clone(),
        );
        registry.register(
            "stale_served",
            "Manifests served from the cache because upstream could not say whether the tag has moved",
            self.stale.clone(),
        );
        self.durations.register(registry);
        registry.register(
            "sent_bytes",
            "Bytes of response bodies, by the registry that is named",
            self.sent.clone(),
        );
    }

    /// Counts an answer whose headers are there; what is returned counts the rest of it.
    pub(super) fn count(
        &self,
        registry: &str,
        status: StatusCode,
        outcome: Outcome,
        began: Instant,
    ) -> Account {
        // Who asks for what is forbidden chooses the name; it is not to fill the table.
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
        let known = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(registry) { registry.to_owned() } else { OTHER.to_owned() }
    }

    fn bounded(&self, registry: &str) -> String {
        let mut known = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn keeps_the_names_that_dashboards_read() {
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
    fn requests_cannot_make_series_without_end() {
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
