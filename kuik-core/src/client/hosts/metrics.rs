//! Metrics of upstream hosts, read from the client's report at each scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::client::{HostReport, Outcome, RegistryClient};

/// Label of the hosts that are counted together.
const OTHER: &str = "other";

#[derive(Debug)]
struct UpstreamMetrics(RegistryClient);

impl RegistryClient {
    /// Registers the per-host counters and gauges. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("upstream");
        registry.register_collector(Box::new(UpstreamMetrics(self.clone())));
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    registry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    registry: String,
    outcome: &'static str,
}

fn name(report: &HostReport) -> String {
    report.name.as_deref().unwrap_or(OTHER).to_owned()
}

impl Collector for UpstreamMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let reports = self.0.hosts();
        requests(&reports, &mut encoder)?;
        let received = |report: &HostReport| Some(report.received_bytes);
        counter("received_bytes", "Bytes received in response bodies", received, &reports, &mut encoder)?;
        let retries = |report: &HostReport| Some(report.retries);
        counter("retries", "Retried requests", retries, &reports, &mut encoder)?;
        let own = |report: &HostReport, value: i64| report.name.as_ref().map(|_| value);
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let circuit_open = |report: &HostReport| own(report, i64::from(report.circuit_open));
        gauge("breaker_open", "1 while the circuit breaker is open", circuit_open, &reports, &mut encoder)?;
        let in_flight = |report: &HostReport| own(report, count(report.in_flight as u64));
        gauge(
            "requests_in_flight",
            "Requests in flight, including response bodies",
            in_flight,
            &reports,
            &mut encoder,
        )?;
        let paused =
            |report: &HostReport| own(report, count(report.paused_for.unwrap_or_default().as_secs()));
        gauge(
            "held_seconds",
            "Remaining seconds of a pause that the host asked for",
            paused,
            &reports,
            &mut encoder,
        )?;
        let remaining = |report: &HostReport| report.quota.map(|quota| count(quota.remaining));
        gauge(
            "quota_remaining",
            "Remaining requests of the quota, as last reported",
            remaining,
            &reports,
            &mut encoder,
        )?;
        let limit = |report: &HostReport| report.quota.and_then(|quota| quota.limit).map(count);
        gauge("quota_limit", "Requests that the quota allows in each window", limit, &reports, &mut encoder)
    }
}

/// Encodes only outcomes that occurred: most never do.
fn requests(reports: &[HostReport], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(
        "requests",
        "Requests to registries, token endpoints and storage, by outcome",
        None,
        MetricType::Counter,
    )?;
    for report in reports {
        for &(outcome, count) in report.outcomes.iter().filter(|(_, count)| *count > 0) {
            let labels = OfOutcome { registry: name(report), outcome: Outcome::as_str(outcome) };
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn counter(
    metric: &str,
    help: &str,
    value: impl Fn(&HostReport) -> Option<u64>,
    reports: &[HostReport],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(metric, help, None, MetricType::Counter)?;
    for (report, value) in reports.iter().filter_map(|report| Some((report, value(report)?))) {
        ConstCounter::new(value).encode(family.encode_family(&Of { registry: name(report) })?)?;
    }
    Ok(())
}

fn gauge(
    metric: &str,
    help: &str,
    value: impl Fn(&HostReport) -> Option<i64>,
    reports: &[HostReport],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(metric, help, None, MetricType::Gauge)?;
    for (report, value) in reports.iter().filter_map(|report| Some((report, value(report)?))) {
        ConstGauge::new(value).encode(family.encode_family(&Of { registry: name(report) })?)?;
    }
    Ok(())
}
