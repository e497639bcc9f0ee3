//! A replica of the cache over the network: a registry at one address, which has other registries' content under
//! their encoded names.
//!
//! Replicas are asked directly, without a forward proxy, and a connection that does not open at once is given up.

use std::{
    net::SocketAddr,
    str::FromStr as _,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use http::{Request, Uri};
use kuik_core::{
    client::{
        Body, CacheEndpoint, CertificateAuthorities, HostLimits, HttpTransport, InvalidTransport,
        RegistryClient, Timeouts, TransportConfig, UpstreamResolver as _,
    },
    content::{ContentSource, EncodedNames, SourceError, SourceErrorKind},
    credentials::{Anonymous, CredentialProvider, Providers},
    forward,
};
use parking_lot::{Mutex, MutexGuard};
use tower::ServiceExt as _;

use crate::chain::{Connect, Replica};

/// How long to wait for what. A request is sent to two replicas at most, and both together may cost a second if neither
/// responds; the headers of one that responds take as long as its own upstream does.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_millis(450),
    headers: Duration::from_secs(19),
    answer: Duration::from_secs(19),
    stall: Duration::from_secs(30),
};

/// Connects to replicas over plain HTTP or TLS, as their names say ([`Replicas`](crate::chain::Replicas)). Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct HttpReplicas {
    credentials: Arc<dyn CredentialProvider>,
    trusted: Arc<Mutex<Trusted>>,
}

/// Certificate authorities, and the transports that trust them.
#[derive(Debug, Default)]
struct Trusted {
    roots: Vec<CertificateAuthorities>,
    transports: Vec<Weak<HttpTransport>>,
}

#[derive(Debug)]
struct HttpReplica {
    source: EncodedNames,
    transport: Arc<HttpTransport>,
    ping: Uri,
}

impl Default for HttpReplicas {
    /// Replicas without access control. Over TLS, the system's certificate authorities are trusted.
    fn default() -> Self {
        Self { credentials: Arc::new(Anonymous), trusted: Arc::default() }
    }
}

impl HttpReplicas {
    /// Sets the credentials, which are looked up under the host and port of the replica's endpoint.
    #[must_use]
    pub fn with_credentials(self, credentials: impl CredentialProvider) -> Self {
        Self { credentials: Arc::new(credentials), ..self }
    }

    /// Replaces the trusted certificate authorities, for all replicas. If there are any, those of the system are not
    /// trusted by replicas that are connected later.
    ///
    /// # Errors
    /// Fails if a certificate is unusable.
    pub fn trust(&self, roots: &[CertificateAuthorities]) -> Result<(), InvalidTransport> {
        let mut trusted = self.trusted();
        let transports: Vec<_> = trusted.transports.iter().filter_map(Weak::upgrade).collect();
        for transport in transports {
            transport.trust(roots)?;
        }
        trusted.roots = roots.to_vec();
        Ok(())
    }

    fn trusted(&self) -> MutexGuard<'_, Trusted> {
        self.trusted.lock()
    }
}

impl Connect for HttpReplicas {
    fn connect(&self, name: &str) -> Result<Arc<dyn Replica>, SourceError> {
        let attempted = || format!("use {name} as a replica of the cache");
        let unusable = |error: Box<dyn std::error::Error + Send + Sync>| {
            SourceError::caused_by(SourceErrorKind::Forbidden, attempted(), error)
        };
        // `ADDRESS=URL`: a replica behind the name in a URL.
        let (address, url) = match name.split_once('=') {
            Some((address, url)) => (Some(address), url),
            None => (None, name),
        };
        let endpoint = CacheEndpoint::from_str(url).map_err(|error| unusable(error.into()))?;
        let address =
            address.map(SocketAddr::from_str).transpose().map_err(|error| unusable(error.into()))?;
        let upstream = endpoint.upstream();
        let ping = upstream.ping().map_err(|error| unusable(error.into()))?;
        let mut trusted = self.trusted();
        let mut config = TransportConfig::default();
        config.guard = upstream.guard();
        config.system_roots = endpoint.is_https() && trusted.roots.is_empty();
        config.extra_roots = trusted.roots.clone();
        config.timeouts = TIMEOUTS;
        config.connect_to = address;
        let transport = HttpTransport::new(config).map_err(|error| unusable(error.into()))?;
        let transport = Arc::new(transport);
        trusted.transports.retain(|known| known.strong_count() > 0);
        trusted.transports.push(Arc::downgrade(&transport));
        drop(trusted);
        // `CacheReplicas` has its own circuit breakers.
        let limits = HostLimits::none();
        let credentials = Providers::default().and(self.credentials.clone());
        let client = RegistryClient::limited((*transport).clone(), upstream, credentials, TIMEOUTS, limits);
        let client = client.propagating_context();
        Ok(Arc::new(HttpReplica { source: EncodedNames::new(Arc::new(client)), transport, ping }))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentSource for HttpReplica {
    forward!(this => &this.source; resolve, manifest, blob_size, blob, blob_location, tags, referrers, report_corrupt);
}

#[async_trait]
impl Replica for HttpReplica {
    async fn ping(&self) -> Result<(), SourceError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self.ping.clone();
        match (*self.transport).clone().oneshot(request).await {
            // Any response is a sign of life.
            Ok(_) => Ok(()),
            Err(error) => {
                let attempted = format!("GET {}", self.ping);
                Err(SourceError::caused_by(SourceErrorKind::Unavailable, attempted, error).unreachable())
            }
        }
    }
}
