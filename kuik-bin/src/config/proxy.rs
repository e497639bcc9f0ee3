//! Configuration of `kuik-proxy`: its flags and their validated form.

use std::str::FromStr as _;

use kuik_core::client::CacheEndpoint;
use kuik_proxy::{chain::DnsReplicas, serve::BindAddress};

use super::{
    InvalidConfig, Problems,
    cache_access::{CacheAccess, RawCacheAccess},
    origins::{OriginsConfig, RawOrigins},
    process::{ProcessConfig, RawProcess},
    value::address,
};

/// Unvalidated configuration of `kuik-proxy`.
#[derive(Debug, Default, clap::Args)]
pub struct RawProxy {
    #[command(flatten)]
    process: RawProcess,
    /// Additional listen address of /metrics, /healthz and /readyz: HOST:PORT, or 0 for none [default: :8080]
    #[arg(long, env = "KUIK_METRICS_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    metrics_bind_address: Option<String>,
    /// Address of the cache registry: HOST:PORT over plain HTTP, or a URL such as https://HOST:PORT; each IP address that
    /// the name resolves to is a replica; repeatable [default: kube-image-keeper-registry:5000]
    #[arg(
        long,
        env = "KUIK_REGISTRY_ENDPOINT",
        hide_env_values = true,
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    registry_endpoint: Vec<String>,
    #[command(flatten)]
    access: RawCacheAccess,
    #[command(flatten)]
    origins: RawOrigins,
}

/// A valid configuration of `kuik-proxy`.
#[derive(Debug)]
pub struct ProxyConfig {
    /// Listen address (`:8082` by default), shutdown and logs.
    pub process: ProcessConfig,
    /// Additional address of the admin endpoints.
    pub metrics: Option<BindAddress>,
    /// The replicas of the cache.
    pub replicas: DnsReplicas,
    /// How they are accessed.
    pub access: CacheAccess,
    /// Upstream registries.
    pub origins: OriginsConfig,
}

const METRICS: &str = "metrics-bind-address";
const ENDPOINT: &str = "registry-endpoint";

/// Default address of the cache.
const DEFAULT_ENDPOINT: &str = "kube-image-keeper-registry:5000";

impl RawProxy {
    /// Validates the configuration.
    ///
    /// # Errors
    /// Returns an error that lists every invalid setting.
    pub fn validate(self) -> Result<ProxyConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 4] =
            [&RawProcess::KEYS, &[METRICS, ENDPOINT], &RawCacheAccess::KEYS, &RawOrigins::KEYS];
        let file = self.process.file(&groups, &mut problems);
        let metrics = file.one(METRICS, self.metrics_bind_address);
        let metrics = address(METRICS, metrics.as_deref(), ":8080", &mut problems);
        let mut endpoints = file.list(ENDPOINT, self.registry_endpoint);
        if endpoints.is_empty() {
            endpoints.push(DEFAULT_ENDPOINT.to_owned());
        }
        let replicas = replicas(&endpoints, &mut problems);
        let access = self.access.merge_file(&file).read(&mut problems);
        let origins = self.origins.merge_file(&file).read(&mut problems);
        let process = self.process.merge_file(&file).read(BindAddress::any(8082), &mut problems);
        let config = process.zip(replicas);
        let config =
            config.map(|(process, replicas)| ProxyConfig { process, metrics, replicas, access, origins });
        problems.into_result(config)
    }
}

/// Returns `None` only if a problem was added.
fn replicas(endpoints: &[String], problems: &mut Problems) -> Option<DnsReplicas> {
    let mut plain = Vec::new();
    let mut urls = Vec::new();
    for text in endpoints {
        let endpoint = problems.check(ENDPOINT, CacheEndpoint::from_str(text))?;
        if text.contains("://") {
            urls.push(endpoint);
        } else {
            plain.push(endpoint.authority().to_owned());
        }
    }
    let replicas = problems.check(ENDPOINT, DnsReplicas::new(plain))?;
    urls.iter().try_fold(replicas, |replicas, endpoint| {
        problems.check(ENDPOINT, replicas.and_url(endpoint.authority(), endpoint.base()))
    })
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
