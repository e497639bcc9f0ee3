//! Assembles the admission webhook: its service for our server, and the certificate that it is served with.
//!
//! The certificate comes from two files, which are read again when they change, or is self-managed, in a Secret that replicas
//! share. With a self-managed certificate, the webhook listens as soon as the first one exists.

use std::time::{Duration, SystemTime};

use kube_client::Client;
use kuik_core::{controller, error::chain};
use kuik_proxy::serve::{Tls, TlsMetrics, UnusableCertificate, admin::ReadinessCheck};
use kuik_webhook::{
    admission::{AdmissionMetrics, AdmissionService},
    certificates::{CertificateSpec, KeyPair, KubernetesStore, RotationError, Rotator},
};
use prometheus_client::registry::Registry;

use crate::{
    cli_error::CliError,
    config::{certificates::CertificatesConfig, rewriting::RewritingConfig},
    readiness::Milestone,
    shutdown::Stop,
};

/// Interval of the checks whether the certificate has to be renewed.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Delay before the next attempt to create the first certificate.
const RETRY: Duration = Duration::from_secs(2);

/// The webhook of a process: its admission service and its serving certificate.
#[derive(Debug)]
pub struct Webhook {
    service: AdmissionService,
    metrics: AdmissionMetrics,
    tls: Option<Tls>,
    tls_metrics: TlsMetrics,
    certificates: CertificatesConfig,
    namespace: Option<String>,
    certified: Milestone,
}

impl Webhook {
    /// Returns the webhook for images as configured by `rewriting`, with the certificate of `tls` or a self-managed one.
    #[must_use]
    pub fn new(rewriting: &RewritingConfig, tls: Option<Tls>, certificates: CertificatesConfig) -> Self {
        let metrics = AdmissionMetrics::default();
        Self {
            service: AdmissionService::new(rewriting.admission().with_metrics(metrics.clone())),
            metrics,
            tls,
            tls_metrics: TlsMetrics::default(),
            certificates,
            namespace: rewriting.namespace.clone(),
            certified: Milestone::new("certificate", "there is none to serve yet; the log says why"),
        }
    }

    /// The readiness check: passes as soon as there is a certificate.
    #[must_use]
    pub fn readiness(&self) -> Box<dyn ReadinessCheck> {
        Box::new(self.certified.clone())
    }

    /// Metrics of reviews and TLS.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        match &self.tls {
            Some(tls) => tls.register(registry),
            None => self.tls_metrics.register(registry),
        }
    }

    /// The admission service.
    #[must_use]
    pub fn service(&self) -> AdmissionService {
        self.service.clone()
    }

    /// Waits for the certificate; returns `None` if the process shuts down first. Only a self-managed certificate needs the
    /// API server, through `client` or a client of its own.
    ///
    /// # Errors
    /// If the cluster is unreachable, or the created certificate is unusable.
    pub async fn certificate(&self, client: Option<Client>, stop: &Stop) -> Result<Option<Tls>, CliError> {
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None => {
                let client = match client {
                    Some(client) => client,
                    None => controller::connect().await.map_err(CliError::new)?,
                };
                let namespace = self.namespace.as_deref().unwrap_or_else(|| client.default_namespace());
                let metrics = self.tls_metrics.clone();
                tokio::select! {
                    tls = own_certificate(&client, &self.certificates, namespace, metrics) => tls.map_err(CliError::new)?,
                    () = stop.asked() => return Ok(None),
                }
            }
        };
        self.certified.reached();
        Ok(Some(tls))
    }
}

/// Manages a certificate in `namespace`: waits until it exists, and from then on serves the newest one. TLS is counted in
/// `metrics`.
///
/// # Errors
/// If the created certificate is unusable.
async fn own_certificate(
    client: &Client,
    config: &CertificatesConfig,
    namespace: &str,
    metrics: TlsMetrics,
) -> Result<Tls, UnusableCertificate> {
    let store = KubernetesStore::new(client, config.objects(namespace));
    let rotator = Rotator::new(store, CertificateSpec::new(config.names(namespace)));
    let mut served = loop {
        match rotator.rotate(now()).await {
            Ok(pair) => break pair,
            Err(error) => tell(&error),
        }
        tokio::time::sleep(RETRY).await;
    };
    let tls = Tls::given(&served.certificate.pem(), &served.key, metrics)?;
    let serves = tls.clone();
    // It ends with the process.
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match rotator.rotate(now()).await {
                Ok(pair) if pair == served => {}
                Ok(pair) => serve(&serves, &mut served, pair),
                Err(error) => tell(&error),
            }
        }
    });
    Ok(tls)
}

fn serve(tls: &Tls, served: &mut KeyPair, pair: KeyPair) {
    match tls.replace(&pair.certificate.pem(), &pair.key) {
        Ok(()) => *served = pair,
        Err(error) => {
            tracing::warn!(%error, "the new certificate cannot be served: the last one stays in use");
        }
    }
}

fn tell(error: &RotationError) {
    tracing::warn!(error = chain(error), "certificate rotation failed, retrying");
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
