//! Default transport: HTTP/1.1 over pooled TCP and TLS connections.
//!
//! HTTP/1.1 on purpose: one connection per blob uses the bandwidth better than multiplexed streams, and a stalled blob
//! does not block others.

use std::{
    error::Error as _,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
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
use parking_lot::RwLock;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tower::Service;

use super::{
    Body, BoxError,
    egress::{Egress, EgressStream, InvalidProxy, ProxyConfig},
    insecure::{Spoken, SpokenProtocols},
    verifier::{unverified, verifying},
};
use crate::client::{Guard, Timeouts};

/// Configuration of the default transport.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransportConfig {
    /// The hosts that are exempt from the address rules: the guard of the resolver
    /// ([`crate::client::UpstreamResolver::guard`]).
    pub guard: Guard,
    /// Certificate authorities that are trusted in addition to those of the system.
    pub extra_roots: Vec<CertificateAuthorities>,
    /// Whether the system's certificate authorities are trusted.
    pub system_roots: bool,
    /// Proxies.
    pub proxy: ProxyConfig,
    /// Timeouts. The transport uses only `connect`; the constructors of
    /// [`RegistryClient`](crate::client::RegistryClient) that take this configuration use all of them.
    pub timeouts: Timeouts,
    /// The maximum number of idle connections per registry.
    pub idle_per_host: usize,
    /// Address to connect to, whatever the host of a URL resolves to; forward proxies are not used. TLS still verifies
    /// the name, and requests carry it: for one replica of several behind a name.
    pub connect_to: Option<SocketAddr>,
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
            connect_to: None,
        }
    }
}

/// Certificate authorities from a PEM file.
#[derive(Clone)]
pub struct CertificateAuthorities(Vec<CertificateDer<'static>>);

impl CertificateAuthorities {
    /// Parses all certificates of a PEM file; `file` names it in errors.
    ///
    /// # Errors
    /// Fails if there is no certificate or one is invalid.
    pub fn from_pem(file: &str, pem: &[u8]) -> Result<Self, InvalidTransport> {
        let wrong = |problem: String| InvalidTransport::Certificates { file: file.to_owned(), problem };
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(error.to_string()))?;
        if certificates.is_empty() {
            return Err(wrong("no certificate found".to_owned()));
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

/// Why the transport cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTransport {
    /// A file of certificate authorities is unusable.
    #[error("{file}: {problem}")]
    Certificates {
        /// The file.
        file: String,
        /// The problem.
        problem: String,
    },
    /// A proxy is unusable.
    #[error(transparent)]
    Proxy(#[from] InvalidProxy),
    /// The TLS library has no protocol version in common with its provider.
    #[error("TLS cannot be set up")]
    Tls,
}

/// The connection timed out; mapped to `TimedOut`.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
pub(crate) struct ConnectTimedOut(Duration);

/// A [`crate::client::RegistryTransport`] over TCP and TLS. Clones share connections and trusted certificate
/// authorities.
#[derive(Clone)]
pub struct HttpTransport {
    config: Arc<TransportConfig>,
    now: Arc<RwLock<Connections>>,
    spoken: Arc<SpokenProtocols>,
}

/// The connections under one set of certificate authorities.
#[derive(Clone)]
struct Connections {
    client: Client<Connector, Body>,
    connector: Connector,
    egress: Egress,
}

impl HttpTransport {
    /// Creates a transport. It needs a tokio runtime only when it is used.
    ///
    /// # Errors
    /// Fails if a certificate or a proxy of the configuration is invalid.
    pub fn new(config: TransportConfig) -> Result<Self, InvalidTransport> {
        let now = Connections::new(&config, &config.extra_roots)?;
        let spoken = Arc::default();
        Ok(Self { config: Arc::new(config), now: Arc::new(RwLock::new(now)), spoken })
    }

    /// Replaces the additional certificate authorities; those of the system stay as configured. Connections and TLS
    /// sessions from before are not reused; responses in progress continue.
    ///
    /// # Errors
    /// Fails if a certificate is invalid; then nothing changes.
    pub fn trust(&self, extra_roots: &[CertificateAuthorities]) -> Result<(), InvalidTransport> {
        let connections = Connections::new(&self.config, extra_roots)?;
        *self.now.write() = connections;
        Ok(())
    }

    /// Returns the `https` form of the request's URI if the registry is insecure, may speak either protocol, and speaks
    /// TLS.
    async fn secured(&self, uri: &Uri, connector: &Connector) -> Option<Uri> {
        let tls = self.config.guard.unverified_form(uri)?;
        match self.spoken.of(uri) {
            Some(Spoken::Tls) => return Some(tls),
            Some(Spoken::Plain { .. }) => return None,
            None => {}
        }
        // A server of plain HTTP may wait for the rest of what it takes for a request.
        let limit = self.config.timeouts.connect / 2;
        match tokio::time::timeout(limit, connector.clone().call(tls.clone())).await {
            Ok(Ok(_)) => {
                self.spoken.tls(uri);
                Some(tls)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, host = tls.host(), "insecure registry does not speak TLS, trying plain HTTP");
                None
            }
            Err(_) => None,
        }
    }
}

impl Connections {
    fn new(
        config: &TransportConfig,
        extra_roots: &[CertificateAuthorities],
    ) -> Result<Self, InvalidTransport> {
        let tls = client_config(config.system_roots, extra_roots)?;
        let egress = Egress::new(config.guard.clone(), &config.proxy, config.connect_to, tls.clone())?;
        let connector = Connector {
            verified: HttpsConnector::from((egress.clone(), tls)),
            unverified: HttpsConnector::from((
                egress.clone(),
                unverified().map_err(|_| InvalidTransport::Tls)?,
            )),
            guard: config.guard.clone(),
            limit: config.timeouts.connect,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(config.idle_per_host)
            .build(connector.clone());
        Ok(Self { client, connector, egress })
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
        let Connections { client, connector, egress } = self.now.read().clone();
        let transport = self.clone();
        Box::pin(async move {
            if let Some(tls) = transport.secured(request.uri(), &connector).await {
                *request.uri_mut() = tls;
            }
            if let Some(authorization) = egress.proxy_authorization(request.uri()) {
                request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
            }
            let (uri, again) = (request.uri().clone(), repeatable(&request));
            let answered = match (client.request(request).await, again) {
                (Err(error), Some(again)) if was_idle(&error) => client.request(again).await,
                (answered, _) => answered,
            };
            let answered = answered?;
            if transport.config.guard.unverified_form(&uri).is_some() {
                transport.spoken.plain(&uri, answered.status());
            }
            Ok(answered.map(Body::new))
        })
    }
}

/// Returns a copy of the request if it is safe to repeat.
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

/// Returns whether the connection was closed before the start of a response. This happens when a server closes an idle
/// connection just as it is reused, so one more attempt is worth it.
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
    let anchors: Vec<_> = extra_roots.iter().flat_map(|file| &file.0).cloned().collect();
    for certificate in &anchors {
        roots.add(certificate.clone()).map_err(|_| InvalidTransport::Tls)?;
    }
    verifying(roots, anchors).map_err(|_| InvalidTransport::Tls)
}

/// Opens a connection, including TLS, within the connect timeout.
#[derive(Clone)]
struct Connector {
    verified: HttpsConnector<Egress>,
    /// For insecure registries.
    unverified: HttpsConnector<Egress>,
    guard: Guard,
    limit: Duration,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<EgressStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.verified.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = self.limit;
        let https = if self.guard.is_unverified(&uri) { &mut self.unverified } else { &mut self.verified };
        let connecting = https.call(uri);
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
    fn invalid_certificate_files_are_rejected() {
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = CertificateAuthorities::from_pem("ca.pem", pem.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("ca.pem: "), "{error}");
        }
    }
}
