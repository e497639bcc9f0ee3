//! The configuration of `kuik-webhook`: its flags, and what they mean once they are valid.

use kuik_proxy::server::BindAddress;

use super::{
    InvalidConfig, Problems,
    certificates::{CertificatesConfig, RawCertificates},
    process::{ProcessConfig, RawProcess},
    rewriting::{RawRewriting, RewritingConfig},
    value::address,
};

/// What `kuik-webhook` is told, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawWebhook {
    #[command(flatten)]
    process: RawProcess,
    /// Where to answer /metrics, /healthz and /readyz besides: HOST:PORT, or 0 for nowhere else [default: 0]
    #[arg(long, env = "KUIK_METRICS_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    metrics_bind_address: Option<String>,
    /// Where to answer /healthz, /readyz and /metrics: HOST:PORT, or 0 for nowhere [default: :8081]
    #[arg(long, env = "KUIK_HEALTH_PROBE_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    health_probe_bind_address: Option<String>,
    #[command(flatten)]
    rewriting: RawRewriting,
    #[command(flatten)]
    certificates: RawCertificates,
}

/// A valid configuration of `kuik-webhook`.
#[derive(Debug)]
pub struct WebhookConfig {
    /// Where to listen (:9443 unless said otherwise), and how to stop. Where no certificate is given in files, kuik makes
    /// one itself.
    pub process: ProcessConfig,
    /// Where operators ask, besides.
    pub metrics: Option<BindAddress>,
    /// Where the kubelet and operators ask.
    pub health: Option<BindAddress>,
    /// Which images are rewritten.
    pub rewriting: RewritingConfig,
    /// Where our own certificate is kept.
    pub certificates: CertificatesConfig,
}

const METRICS: &str = "metrics-bind-address";
const HEALTH: &str = "health-probe-bind-address";

impl RawWebhook {
    /// The valid configuration.
    ///
    /// # Errors
    /// Everything that is wrong, together.
    pub fn validate(self) -> Result<WebhookConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 4] =
            [&RawProcess::KEYS, &[METRICS, HEALTH], &RawRewriting::KEYS, &RawCertificates::KEYS];
        let file = self.process.file(&groups, &mut problems);
        let metrics = file.one(METRICS, self.metrics_bind_address);
        let metrics = address(METRICS, metrics.as_deref(), "0", &mut problems);
        let health = file.one(HEALTH, self.health_probe_bind_address);
        let health = address(HEALTH, health.as_deref(), ":8081", &mut problems);
        let rewriting = self.rewriting.over(&file).read(&mut problems);
        let certificates = self.certificates.read(&file);
        let process = self.process.over(&file).read(BindAddress::any(9443), &mut problems);
        let config = process.zip(rewriting).map(|(process, rewriting)| WebhookConfig {
            process,
            metrics,
            health,
            rewriting,
            certificates,
        });
        problems.into_result(config)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_defaults_are_those_that_people_know() {
        let config = RawWebhook::default().validate().unwrap();
        assert_eq!(config.process.bind, [BindAddress::any(9443)]);
        assert_eq!((config.metrics, config.health), (None, Some(BindAddress::any(8081))));
        assert_eq!(config.rewriting.proxy.as_str(), "localhost:8082");
        let names = config.certificates.names("kuik-system");
        assert_eq!(names.first().map(String::as_str), Some("kube-image-keeper-webhook.kuik-system.svc"));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let raw = RawWebhook {
            metrics_bind_address: Some("8080".to_owned()),
            health_probe_bind_address: Some("nowhere".to_owned()),
            rewriting: RawRewriting {
                proxy_port: Some("70000".to_owned()),
                ignore_images: vec!["(".to_owned()],
                ignore_pull_policy_always: Some("perhaps".to_owned()),
                object_selector: Some("team=shop".to_owned()),
                ..RawRewriting::default()
            },
            ..RawWebhook::default()
        };
        let report = raw.validate().unwrap_err().to_string();
        for key in [
            METRICS,
            HEALTH,
            "proxy-port",
            "ignore-images, accept-images",
            "ignore-pull-policy-always",
            "object-selector",
        ] {
            assert!(report.contains(&format!("\n  {key}: ")), "{key} is missing:\n{report}");
        }
    }

    #[test]
    fn a_file_can_say_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kuik.yaml");
        let lines = "metricsBindAddress: ':8080'\nhealthProbeBindAddress: 0\nproxyPort: 7439\nignoreImages: ['a{1,2}']\n\
                     ignoreNamespaces: [a, b]\nnamespace: kuik-system\ncertificateSecret: s\nwebhookConfiguration: c\n\
                     webhookService: w\nobjectSelector: {matchExpressions: [{key: team, operator: In, values: [shop]}]}\n";
        fs::write(&path, lines).unwrap();
        let process = RawProcess { config: Some(path), ..RawProcess::default() };
        let config = RawWebhook { process, ..RawWebhook::default() }.validate().unwrap();
        assert_eq!((config.metrics, config.health), (Some(BindAddress::any(8080)), None));
        for namespace in ["a", "b", "kuik-system", "kube-system"] {
            assert!(config.rewriting.ignored.contains(namespace), "{namespace}");
        }
        assert_eq!(config.rewriting.selector.to_string(), "team in (shop)");
        let certificates =
            CertificatesConfig { secret: "s".into(), configuration: "c".into(), service: "w".into() };
        assert_eq!(config.certificates, certificates);
    }
}
