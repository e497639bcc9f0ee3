//! Assembles the admission webhook: its service for our server, and the certificate that it is served with.
//!
//! The certificate comes from two files, which are read again when they change; or kuik looks after one itself, in a Secret
//! that replicas share. Then nothing listens before there is one.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kube_client::Client;
use kuik_core::controller;
use kuik_proxy::{
    admin::ReadinessCheck,
    server::{Tls, TlsMetrics, UnusableCertificate},
    service::ProxyBody,
};
use kuik_webhook::{
    admission::{AdmissionMetrics, AdmissionService},
    certificates::{KeepError, Keeper, KeyPair, KubernetesStore, Lifetimes},
};
use prometheus_client::registry::Registry;

use crate::{
    command::Failure,
    config::{certificates::CertificatesConfig, rewriting::RewritingConfig},
    milestone::Milestone,
    shutdown::Stop,
};

/// How often it is looked whether something has to be done about the certificate.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long to wait before the next attempt at the first certificate.
const RETRY: Duration = Duration::from_secs(2);

/// The webhook of a process: what answers, and the certificate that it answers with.
#[derive(Debug)]
pub struct Webhook {
    service: WebhookService,
    metrics: AdmissionMetrics,
    tls: Option<Tls>,
    tls_metrics: TlsMetrics,
    certificates: CertificatesConfig,
    namespace: Option<String>,
    certified: Milestone,
}

/// The webhook as a service of [`kuik_proxy::server`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WebhookService(AdmissionService);

impl Webhook {
    /// The webhook for images as `rewriting` has it, with the certificate of `tls`, or with its own where none is given.
    #[must_use]
    pub fn new(rewriting: &RewritingConfig, tls: Option<Tls>, certificates: CertificatesConfig) -> Self {
        let metrics = AdmissionMetrics::default();
        Self {
            service: WebhookService(AdmissionService::new(rewriting.admission(), metrics.clone())),
            metrics,
            tls,
            tls_metrics: TlsMetrics::default(),
            certificates,
            namespace: rewriting.namespace.clone(),
            certified: Milestone::new("certificate", "there is none to serve yet; the log says why"),
        }
    }

    /// Ready from when there is a certificate.
    #[must_use]
    pub fn readiness(&self) -> Box<dyn ReadinessCheck> {
        Box::new(self.certified.clone())
    }

    /// What is counted of reviews and of TLS.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        match &self.tls {
            Some(tls) => tls.register(registry),
            None => self.tls_metrics.register(registry),
        }
    }

    /// What answers reviews.
    #[must_use]
    pub fn service(&self) -> WebhookService {
        self.service.clone()
    }

    /// Waits until there is a certificate; `None` where the process is to stop before that. The cluster is asked through
    /// `client`, or through a client of our own, and only where no certificate is given.
    ///
    /// # Errors
    /// Where there is no way to the cluster, or what was made cannot be served.
    pub async fn certificate(&self, client: Option<Client>, stop: &Stop) -> Result<Option<Tls>, Failure> {
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None => {
                let client = match client {
                    Some(client) => client,
                    None => controller::connect().await.map_err(Failure::new)?,
                };
                let namespace = self.namespace.as_deref().unwrap_or_else(|| client.default_namespace());
                let metrics = self.tls_metrics.clone();
                tokio::select! {
                    tls = own_certificate(&client, &self.certificates, namespace, metrics) => tls.map_err(Failure::new)?,
                    () = stop.asked() => return Ok(None),
                }
            }
        };
        self.certified.reached();
        Ok(Some(tls))
    }
}

impl tower::Service<Request<Incoming>> for WebhookService {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let (head, body) = answer.await?.into_parts();
            Ok(Response::from_parts(head, ProxyBody::full(body.collect().await?.to_bytes())))
        })
    }
}

/// Looks after a certificate of our own in `namespace`: waits until there is one, and sees to it that the newest is served
/// from then on. TLS is counted in `metrics`.
///
/// # Errors
/// Where what was made cannot be served.
async fn own_certificate(
    client: &Client,
    config: &CertificatesConfig,
    namespace: &str,
    metrics: TlsMetrics,
) -> Result<Tls, UnusableCertificate> {
    let store = KubernetesStore::new(client, config.place(namespace));
    let keeper = Keeper::new(store, config.names(namespace), Lifetimes::default());
    let mut served = loop {
        match keeper.settle(now()).await {
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
            match keeper.settle(now()).await {
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

fn tell(error: &KeepError) {
    let chain = std::iter::successors(std::error::Error::source(error), |&cause| cause.source());
    let chain = chain.fold(error.to_string(), |chain, cause| format!("{chain}: {cause}"));
    tracing::warn!(error = %chain, "it is tried again");
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
