//! The configuration of `kuik-proxy`: its flags, and what they mean once they are valid.

use kuik_proxy::{chain::DnsReplicas, server::BindAddress};

use super::{
    InvalidConfig, Problems,
    origins::{OriginsConfig, RawOrigins},
    process::{ProcessConfig, RawProcess},
    value::address,
};

/// What `kuik-proxy` is told, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawProxy {
    #[command(flatten)]
    process: RawProcess,
    /// Where to answer /metrics, /healthz and /readyz besides: HOST:PORT, or 0 for nowhere else [default: :8080]
    #[arg(long, env = "KUIK_METRICS_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    metrics_bind_address: Option<String>,
    /// The cache: HOST:PORT of a registry, over plain http. Each address that the name resolves to is a replica; may be
    /// given several times [default: kube-image-keeper-registry:5000]
    #[arg(
        long,
        env = "KUIK_REGISTRY_ENDPOINT",
        hide_env_values = true,
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    registry_endpoint: Vec<String>,
    #[command(flatten)]
    origins: RawOrigins,
}

/// A valid configuration of `kuik-proxy`.
#[derive(Debug)]
pub struct ProxyConfig {
    /// Where to listen (:8082 unless said otherwise), and how to stop.
    pub process: ProcessConfig,
    /// Where operators ask, besides.
    pub metrics: Option<BindAddress>,
    /// The replicas of the cache.
    pub replicas: DnsReplicas,
    /// Other registries.
    pub origins: OriginsConfig,
}

const METRICS: &str = "metrics-bind-address";
const ENDPOINT: &str = "registry-endpoint";

/// The cache's name where nobody says another.
const DEFAULT_ENDPOINT: &str = "kube-image-keeper-registry:5000";

impl RawProxy {
    /// The valid configuration.
    ///
    /// # Errors
    /// Everything that is wrong, together.
    pub fn validate(self) -> Result<ProxyConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 3] = [&RawProcess::KEYS, &[METRICS, ENDPOINT], &RawOrigins::KEYS];
        let file = self.process.file(&groups, &mut problems);
        let metrics = file.one(METRICS, self.metrics_bind_address);
        let metrics = address(METRICS, metrics.as_deref(), ":8080", &mut problems);
        let mut endpoints = file.list(ENDPOINT, self.registry_endpoint);
        if endpoints.is_empty() {
            endpoints.push(DEFAULT_ENDPOINT.to_owned());
        }
        let replicas = problems.check(ENDPOINT, DnsReplicas::new(endpoints));
        let origins = self.origins.over(&file).read(&mut problems);
        let process = self.process.over(&file).read(BindAddress::any(8082), &mut problems);
        let config = process.zip(replicas);
        let config = config.map(|(process, replicas)| ProxyConfig { process, metrics, replicas, origins });
        problems.into_result(config)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_chart() {
        let config = RawProxy::default().validate().unwrap();
        assert_eq!(config.process.bind, [BindAddress::any(8082)]);
        assert_eq!(config.metrics, Some(BindAddress::any(8080)));
        assert_eq!(config.replicas, DnsReplicas::new([DEFAULT_ENDPOINT]).unwrap());
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let raw = RawProxy {
            metrics_bind_address: Some("8080".to_owned()),
            registry_endpoint: vec!["registry".to_owned()],
            ..RawProxy::default()
        };
        let report = raw.validate().unwrap_err().to_string();
        for key in [METRICS, ENDPOINT] {
            assert!(report.contains(&format!("\n  {key}: ")), "{key} is missing:\n{report}");
        }
    }

    #[test]
    fn a_file_can_say_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kuik.yaml");
        let lines = "metricsBindAddress: 0\nregistryEndpoint: ['10.0.0.1:5000', '10.0.0.2:5000']\n";
        fs::write(&path, lines).unwrap();
        let process = RawProcess { config: Some(path), ..RawProcess::default() };
        let config = RawProxy { process, ..RawProxy::default() }.validate().unwrap();
        assert_eq!(config.metrics, None);
        assert_eq!(config.replicas, DnsReplicas::new(["10.0.0.1:5000", "10.0.0.2:5000"]).unwrap());
    }
}
