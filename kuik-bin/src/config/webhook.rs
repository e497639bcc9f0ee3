//! Configuration of `kuik-webhook`: its flags and their validated form.

use kuik_proxy::serve::BindAddress;

use super::{
    InvalidConfig, Problems,
    certificates::{CertificatesConfig, RawCertificates},
    process::{ProcessConfig, RawProcess},
    rewriting::{RawRewriting, RewritingConfig},
    value::address,
};

/// Unvalidated configuration of `kuik-webhook`.
#[derive(Debug, Default, clap::Args)]
pub struct RawWebhook {
    #[command(flatten)]
    process: RawProcess,
    /// Additional listen address of /metrics, /healthz and /readyz: HOST:PORT, or 0 for none [default: 0]
    #[arg(long, env = "KUIK_METRICS_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    metrics_bind_address: Option<String>,
    /// Listen address of /healthz, /readyz and /metrics: HOST:PORT, or 0 for none [default: :8081]
    #[arg(long, env = "KUIK_HEALTH_PROBE_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    health_probe_bind_address: Option<String>,
    /// Insecure registry of the proxies, HOST[:PORT] or http(s)://HOST[:PORT]: its images are rewritten even if it is on
    /// a loopback address; repeatable
    #[arg(
        long,
        env = "KUIK_INSECURE_REGISTRIES",
        hide_env_values = true,
        value_name = "REGISTRY",
        value_delimiter = ','
    )]
    insecure_registries: Vec<String>,
    #[command(flatten)]
    rewriting: RawRewriting,
    #[command(flatten)]
    certificates: RawCertificates,
}

/// A valid configuration of `kuik-webhook`.
#[derive(Debug)]
pub struct WebhookConfig {
    /// Listen address (`:9443` by default), shutdown, logs and TLS. Without certificate files, the certificate is
    /// self-managed.
    pub process: ProcessConfig,
    /// Additional address of the admin endpoints.
    pub metrics: Option<BindAddress>,
    /// Address of the probes and other admin endpoints.
    pub health: Option<BindAddress>,
    /// Selects the images to rewrite.
    pub rewriting: RewritingConfig,
    /// Objects of the self-managed certificate.
    pub certificates: CertificatesConfig,
}

const METRICS: &str = "metrics-bind-address";
const HEALTH: &str = "health-probe-bind-address";
const INSECURE: &str = "insecure-registries";

impl RawWebhook {
    /// Validates the configuration.
    ///
    /// # Errors
    /// Returns an error that lists every invalid setting.
    pub fn validate(self) -> Result<WebhookConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 4] =
            [&RawProcess::KEYS, &[METRICS, HEALTH, INSECURE], &RawRewriting::KEYS, &RawCertificates::KEYS];
        let file = self.process.file(&groups, &mut problems);
        let metrics = file.one(METRICS, self.metrics_bind_address);
        let metrics = address(METRICS, metrics.as_deref(), "0", &mut problems);
        let health = file.one(HEALTH, self.health_probe_bind_address);
        let health = address(HEALTH, health.as_deref(), ":8081", &mut problems);
        let insecure = file.list(INSECURE, self.insecure_registries);
        let rewriting = self.rewriting.merge_file(&file).read(&insecure, &mut problems);
        let certificates = self.certificates.read(&file);
        let process = self.process.merge_file(&file).read(BindAddress::any(9443), &mut problems);
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

    use kuik_core::rewrite::{
        ContainerContext, Decision, KeepReason, Placement, PodContext, RewritePolicy as _,
    };

    use super::*;

    #[test]
    fn webhook_defaults_match_the_documentation() {
        let config = RawWebhook::default().validate().unwrap();
        assert_eq!(config.process.bind, [BindAddress::any(9443)]);
        assert_eq!((config.metrics, config.health), (None, Some(BindAddress::any(8081))));
        assert_eq!(config.rewriting.proxy.as_str(), "localhost:8082");
        let names = config.certificates.names("kuik-system");
        assert_eq!(names.first().map(String::as_str), Some("kube-image-keeper-webhook.kuik-system.svc"));
    }

    #[test]
    fn webhook_reports_all_mistakes_together() {
        let raw = RawWebhook {
            metrics_bind_address: Some("8080".to_owned()),
            health_probe_bind_address: Some("nowhere".to_owned()),
            rewriting: RawRewriting {
                proxy_port: Some("70000".to_owned()),
                ignore_images: vec!["(".to_owned()],
                ignore_pull_policy_always: Some("perhaps".to_owned()),
                ignore_node_critical_pods: Some("sometimes".to_owned()),
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
            "ignore-node-critical-pods",
            "object-selector",
        ] {
            assert!(report.contains(&format!("\n  {key}: ")), "{key} is missing:\n{report}");
        }
    }

    #[test]
    fn file_sets_every_webhook_option() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kuik.yaml");
        let lines = "metricsBindAddress: ':8080'\nhealthProbeBindAddress: 0\nproxyPort: 7439\nignoreImages: ['a{1,2}']\n\
                     ignoreNamespaces: [a, b]\nnamespace: kuik-system\ncertificateSecret: s\nwebhookConfiguration: c\n\
                     ignoreNodeCriticalPods: false\ninsecureRegistries: ['http://127.0.0.1:5001/']\n\
                     webhookService: w\nobjectSelector: {matchExpressions: [{key: team, operator: In, values: [shop]}]}\n";
        fs::write(&path, lines).unwrap();
        let process = RawProcess { config: Some(path), ..RawProcess::default() };
        let config = RawWebhook { process, ..RawWebhook::default() }.validate().unwrap();
        assert_eq!((config.metrics, config.health), (Some(BindAddress::any(8080)), None));
        for namespace in ["a", "b", "kuik-system", "kube-system"] {
            assert!(config.rewriting.ignored.contains(namespace), "{namespace}");
        }
        assert_eq!(config.rewriting.selector.to_string(), "team in (shop)");
        let decide =
            |image, pod| config.rewriting.policy.decide(image, &ContainerContext::new("web").with_pod(pod));
        assert_eq!(decide("127.0.0.1:5001/x:1", PodContext::default()), Decision::Rewrite);
        assert_eq!(
            decide("127.0.0.1:5002/x:1", PodContext::default()),
            Decision::Keep(KeepReason::LoopbackRegistry)
        );
        let critical = Placement::default().with_priority_class("system-node-critical");
        assert_eq!(decide("x:1", PodContext::default().with_placement(critical)), Decision::Rewrite);
        let certificates =
            CertificatesConfig { secret: "s".into(), configuration: "c".into(), service: "w".into() };
        assert_eq!(config.certificates, certificates);
    }
}
