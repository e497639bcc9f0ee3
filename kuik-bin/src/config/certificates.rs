//! Settings of the webhook's self-managed certificate: names of the objects that hold and use it.

use crate::rbac;
use kuik_webhook::certificates::ObjectNames;

use super::ConfigFile;

/// Unvalidated certificate settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawCertificates {
    /// Secret with the self-managed webhook certificate, shared by all replicas; not used with --tls-cert-file
    /// [default: kube-image-keeper-webhook-certificate]
    #[arg(long, env = "KUIK_CERTIFICATE_SECRET", hide_env_values = true, value_name = "NAME")]
    pub(super) certificate_secret: Option<String>,
    /// MutatingWebhookConfiguration whose caBundle is kept up to date [default: kube-image-keeper-webhook]
    #[arg(long, env = "KUIK_WEBHOOK_CONFIGURATION", hide_env_values = true, value_name = "NAME")]
    pub(super) webhook_configuration: Option<String>,
    /// Service that API servers call the webhook through [default: kube-image-keeper-webhook]
    #[arg(long, env = "KUIK_WEBHOOK_SERVICE", hide_env_values = true, value_name = "NAME")]
    pub(super) webhook_service: Option<String>,
}

/// Names of the objects that a self-managed certificate needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatesConfig {
    /// Name of the Secret.
    pub secret: String,
    /// Name of the MutatingWebhookConfiguration.
    pub configuration: String,
    /// Name of the Service.
    pub service: String,
}

const SECRET: &str = "certificate-secret";
const CONFIGURATION: &str = "webhook-configuration";
const SERVICE: &str = "webhook-service";

/// Default name of the Service.
const DEFAULT_SERVICE: &str = "kube-image-keeper-webhook";

impl RawCertificates {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 3] = [SECRET, CONFIGURATION, SERVICE];

    /// Returns these values; unset ones come from the file, and then from the defaults.
    pub(super) fn read(self, file: &ConfigFile) -> CertificatesConfig {
        let name = |key, given, default: &str| file.one(key, given).unwrap_or_else(|| default.to_owned());
        CertificatesConfig {
            secret: name(SECRET, self.certificate_secret, rbac::CERTIFICATE_SECRET),
            configuration: name(CONFIGURATION, self.webhook_configuration, rbac::WEBHOOK_CONFIGURATION),
            service: name(SERVICE, self.webhook_service, DEFAULT_SERVICE),
        }
    }
}

impl CertificatesConfig {
    /// Returns the names of the objects, for a process in `namespace`.
    #[must_use]
    pub fn objects(&self, namespace: &str) -> ObjectNames {
        let (secret, configuration) = (self.secret.clone(), self.configuration.clone());
        ObjectNames { namespace: namespace.to_owned(), secret, configuration }
    }

    /// Returns the DNS names of the Service in `namespace`.
    #[must_use]
    pub fn names(&self, namespace: &str) -> Vec<String> {
        let name = format!("{}.{namespace}.svc", self.service);
        vec![name.clone(), format!("{name}.cluster.local")]
    }
}
