//! Where the webhook's certificate is kept, where kuik makes it itself.

use kuik_core::controller::rbac;
use kuik_webhook::certificates::Place;

use super::ConfigFile;

/// What is said about certificates, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawCertificates {
    /// The Secret that replicas share the webhook's certificate in, where none is given in files
    /// [default: kube-image-keeper-webhook-certificate]
    #[arg(long, env = "KUIK_CERTIFICATE_SECRET", hide_env_values = true, value_name = "NAME")]
    pub(super) certificate_secret: Option<String>,
    /// The MutatingWebhookConfiguration whose caBundle is kept right [default: kube-image-keeper-webhook]
    #[arg(long, env = "KUIK_WEBHOOK_CONFIGURATION", hide_env_values = true, value_name = "NAME")]
    pub(super) webhook_configuration: Option<String>,
    /// The Service by which API servers reach the webhook [default: kube-image-keeper-webhook]
    #[arg(long, env = "KUIK_WEBHOOK_SERVICE", hide_env_values = true, value_name = "NAME")]
    pub(super) webhook_service: Option<String>,
}

/// What a certificate is for, and where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatesConfig {
    /// The Secret.
    pub secret: String,
    /// The MutatingWebhookConfiguration.
    pub configuration: String,
    /// The Service.
    pub service: String,
}

const SECRET: &str = "certificate-secret";
const CONFIGURATION: &str = "webhook-configuration";
const SERVICE: &str = "webhook-service";

/// What the Service is called where nobody says otherwise.
const DEFAULT_SERVICE: &str = "kube-image-keeper-webhook";

impl RawCertificates {
    /// The settings that a file can have.
    pub(super) const KEYS: [&str; 3] = [SECRET, CONFIGURATION, SERVICE];

    /// What was given here, for the rest what the file says, and for that the defaults.
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
    /// Where it is kept, by a process in `namespace`.
    #[must_use]
    pub fn place(&self, namespace: &str) -> Place {
        let (secret, configuration) = (self.secret.clone(), self.configuration.clone());
        Place { namespace: namespace.to_owned(), secret, configuration }
    }

    /// The names by which API servers call the Service in `namespace`.
    #[must_use]
    pub fn names(&self, namespace: &str) -> Vec<String> {
        let name = format!("{}.{namespace}.svc", self.service);
        vec![name.clone(), format!("{name}.cluster.local")]
    }
}
