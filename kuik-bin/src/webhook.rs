//! Assembles the admission webhook: its service for our server, and the certificate that it is served with.
//!
//! The certificate comes from two files, which are read again when they change; or kuik looks after one itself, in a Secret
//! that replicas share. Then nothing listens before there is one.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kube_client::Client;
use kuik_proxy::{
    admin::ReadinessCheck,
    server::{Tls, TlsMetrics, UnusableCertificate},
    service::ProxyBody,
};
use kuik_webhook::{
    admission::{AdmissionMetrics, AdmissionService},
    certificates::{KeepError, Keeper, KeyPair, KubernetesStore, Lifetimes},
};

use crate::config::{certificates::CertificatesConfig, rewriting::RewritingConfig};

/// How often it is looked whether something has to be done about the certificate.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long to wait before the next attempt at the first certificate.
const RETRY: Duration = Duration::from_secs(2);

/// The webhook as a service of [`kuik_proxy::server`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WebhookService(AdmissionService);

/// The webhook for images as `config` has it; it counts in `metrics`.
#[must_use]
pub fn webhook(config: &RewritingConfig, metrics: AdmissionMetrics) -> WebhookService {
    WebhookService(AdmissionService::new(config.admission(), metrics))
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
pub async fn own_certificate(
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

/// Ready from when there is a certificate.
#[derive(Debug, Clone, Default)]
pub struct Certified(Arc<OnceLock<()>>);

impl Certified {
    /// There is one.
    pub fn set(&self) {
        let _ = self.0.set(());
    }
}

#[async_trait]
impl ReadinessCheck for Certified {
    fn name(&self) -> &str {
        "certificate"
    }

    async fn check(&self) -> Result<(), String> {
        self.0.get().copied().ok_or_else(|| "there is none to serve yet; the log says why".to_owned())
    }
}
