//! The default transport: HTTP/1.1 over pooled TCP and TLS connections.
//!
//! HTTP/1.1 on purpose: one connection per blob fills the pipe better than streams that share one, and a stalled
//! blob then holds up nobody else.

use std::{
    error::Error as _,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri, header::PROXY_AUTHORIZATION};
use http_body::Body as _;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tower::Service;

use super::{
    Guard, Timeouts,
    egress::{Egress, EgressStream, InvalidProxy, ProxyConfig},
    transport::{Body, BoxError},
};

/// What the default transport needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransportConfig {
    /// The hosts that are exempt from the rules for addresses: that of the resolver ([`super::UpstreamResolver::guard`]).
    pub guard: Guard,
    /// Certificate authorities that are trusted beside those of the system.
    pub extra_roots: Vec<CertificateAuthorities>,
    /// Whether the system's certificate authorities are trusted.
    pub system_roots: bool,
    /// Proxies.
    pub proxy: ProxyConfig,
    /// How long to wait; only `connect` is of interest here.
    pub timeouts: Timeouts,
    /// How many idle connections are kept per registry.
    pub idle_per_host: usize,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            guard: Guard::default(),
            extra_roots: Vec::new(),
            system_roots: true,
            proxy: ProxyConfig::default(),
            timeouts: Timeouts::default(),
            idle_per_host: 16,
        }
    }
}

/// Certificate authorities out of a PEM file.
#[derive(Clone)]
pub struct CertificateAuthorities(Vec<CertificateDer<'static>>);

impl CertificateAuthorities {
    /// Reads all certificates of a PEM file; `file` names it in errors.
    ///
    /// # Errors
    /// Where there is none, or one cannot be read.
    pub fn from_pem(file: &str, pem: &[u8]) -> Result<Self, InvalidTransport> {
        let wrong = |problem: String| InvalidTransport::Certificates { file: file.to_owned(), problem };
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(error.to_string()))?;
        if certificates.is_empty() {
            return Err(wrong("there is no certificate in it".to_owned()));
        }
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(Self(certificates))
    }
}

impl fmt::Debug for CertificateAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthorities({})", self.0.len())
    }
}

/// Why the transport cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTransport {
    /// A file of certificate authorities is unusable.
    #[error("{file}: {problem}")]
    Certificates {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A proxy is unusable.
    #[error(transparent)]
    Proxy(#[from] InvalidProxy),
    /// The TLS library has no protocol version in common with its provider.
    #[error("TLS cannot be set up")]
    Tls,
}

/// The connection took too long; mapped to `TimedOut`.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
pub(super) struct ConnectTimedOut(Duration);

/// A [`super::RegistryTransport`] over TCP and TLS. Clones share their connections, and whom they trust.
#[derive(Clone)]
pub struct HttpTransport {
    config: Arc<TransportConfig>,
    now: Arc<RwLock<Connections>>,
}

/// The connections under one set of certificate authorities.
#[derive(Clone)]
struct Connections {
    client: Client<Connector, Body>,
    egress: Egress,
}

impl HttpTransport {
    /// A transport as configured. Needs a tokio runtime only once it is used.
    ///
    /// # Errors
    /// Where a certificate or a proxy of the configuration is unusable.
    pub fn new(config: TransportConfig) -> Result<Self, InvalidTransport> {
        let now = Connections::new(&config, &config.extra_roots)?;
        Ok(Self { config: Arc::new(config), now: Arc::new(RwLock::new(now)) })
    }

    /// Trusts these certificate authorities from now on, beside those of the system where it trusts them, and none that it
    /// was given before. No connection and no TLS session from before is used again; what is being received goes on.
    ///
    /// # Errors
    /// Where a certificate is unusable: then all stays as it is.
    pub fn trust(&self, extra_roots: &[CertificateAuthorities]) -> Result<(), InvalidTransport> {
        let connections = Connections::new(&self.config, extra_roots)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = connections;
        Ok(())
    }
}

impl Connections {
    fn new(
        config: &TransportConfig,
        extra_roots: &[CertificateAuthorities],
    ) -> Result<Self, InvalidTransport> {
        let tls = client_config(config.system_roots, extra_roots)?;
        let egress = Egress::new(config.guard.clone(), &config.proxy, tls.clone())?;
        let connector =
            Connector { https: HttpsConnector::from((egress.clone(), tls)), limit: config.timeouts.connect };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(config.idle_per_host)
            .build(connector);
        Ok(Self { client, egress })
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for HttpTransport {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Connections { client, egress } = self.now.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(authorization) = egress.proxy_authorization(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        let again = repeatable(&request);
        Box::pin(async move {
            let answered = match (client.request(request).await, again) {
                (Err(error), Some(again)) if was_idle(&error) => client.request(again).await,
                (answered, _) => answered,
            };
            Ok(answered?.map(Body::new))
        })
    }
}

/// The same request once more, where it changes nothing at the other end.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Whether a connection was closed before any of the answer came. That is how it looks when a server closes an idle
/// connection just as it is used again, so one more attempt is worth it.
fn was_idle(error: &hyper_util::client::legacy::Error) -> bool {
    let mut cause = if error.is_connect() { None } else { error.source() };
    while let Some(below) = cause {
        if let Some(error) = below.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return true;
        }
        if let Some(error) = below.downcast_ref::<io::Error>()
            && matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        {
            return true;
        }
        cause = below.source();
    }
    false
}

fn client_config(
    system_roots: bool,
    extra_roots: &[CertificateAuthorities],
) -> Result<ClientConfig, InvalidTransport> {
    let mut roots = RootCertStore::empty();
    if system_roots {
        let found = rustls_native_certs::load_native_certs();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(ignored, errors = ?found.errors, "the system has no certificate authorities");
        }
    }
    for certificate in extra_roots.iter().flat_map(|file| &file.0) {
        roots.add(certificate.clone()).map_err(|_| InvalidTransport::Tls)?;
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| InvalidTransport::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(tls)
}

/// Opens a connection, TLS included, within the time for it.
#[derive(Clone)]
struct Connector {
    https: HttpsConnector<Egress>,
    limit: Duration,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<EgressStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = self.limit;
        let connecting = self.https.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(ConnectTimedOut(limit).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_files_are_checked() {
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = CertificateAuthorities::from_pem("ca.pem", pem.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("ca.pem: "), "{error}");
        }
    }
}
