//! What is measured of the hosts that images are fetched from, read from the client's own report at each scrape.

use std::fmt;

use kuik_core::registry::{HostReport, Outcome, RegistryClient};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// What hosts are called that are counted together.
const OTHER: &str = "other";

#[derive(Debug)]
struct UpstreamMetrics(RegistryClient);

/// Registers the counters and gauges of `client`. `registry` carries the prefix `kube_image_keeper`.
pub(crate) fn register(client: &RegistryClient, registry: &mut Registry) {
    let registry = registry.sub_registry_with_prefix("upstream");
    registry.register_collector(Box::new(UpstreamMetrics(client.clone())));
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
        counter("received_bytes", "Bytes of bodies that were received", received, &reports, &mut encoder)?;
        let retries = |report: &HostReport| Some(report.retries);
        counter("retries", "Requests that were made again", retries, &reports, &mut encoder)?;
        let own = |report: &HostReport, value: i64| report.name.as_ref().map(|_| value);
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let left_alone = |report: &HostReport| own(report, i64::from(report.left_alone));
        gauge(
            "breaker_open",
            "1 while it is left alone because it does not answer",
            left_alone,
            &reports,
            &mut encoder,
        )?;
        let in_flight = |report: &HostReport| own(report, count(report.in_flight as u64));
        gauge(
            "requests_in_flight",
            "Requests that are on their way, bodies included",
            in_flight,
            &reports,
            &mut encoder,
        )?;
        let held = |report: &HostReport| own(report, count(report.held_for.unwrap_or_default().as_secs()));
        gauge("held_seconds", "For how long it still wants to be left alone", held, &reports, &mut encoder)?;
        let remaining = |report: &HostReport| report.quota.map(|quota| count(quota.remaining));
        gauge(
            "quota_remaining",
            "Requests that are left, as it said last",
            remaining,
            &reports,
            &mut encoder,
        )?;
        let limit = |report: &HostReport| report.quota.and_then(|quota| quota.limit).map(count);
        gauge(
            "quota_limit",
            "Requests that it allows in a window, as it said last",
            limit,
            &reports,
            &mut encoder,
        )
    }
}

/// Every outcome that there was, and none that there was not: that would be most series.
fn requests(reports: &[HostReport], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(
        "requests",
        "Requests to registries, token endpoints and storage, by what came of them",
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
