//! A replica of the cache over the network: a registry at one address, which has other registries' content under
//! their encoded names.
//!
//! Replicas are in the cluster: they are asked over plain http, directly, and a connection that is not there at once
//! is not going to be.

use std::{str::FromStr as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{Request, Uri};
use kuik_core::{
    content::{CacheNames, ContentSource, SourceError, SourceErrorKind},
    credentials::Anonymous,
    forward,
    reference::RepositoryName,
    registry::{
        Body, HostLimits, HttpTransport, RegistryClient, Timeouts, TransportConfig, Upstream,
        UpstreamResolver as _,
    },
};
use kuik_proxy::chain::{Connect, Replica};
use tower::ServiceExt as _;

/// How long to wait for what. A request is asked of two replicas at most, and both together may cost a second where
/// nobody is there; the headers of one that is there take as long as its own upstream does.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_millis(450),
    headers: Duration::from_secs(19),
    answer: Duration::from_secs(19),
    stall: Duration::from_secs(30),
};

/// Connects to replicas over plain http.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpReplicas;

#[derive(Debug)]
struct HttpReplica {
    source: CacheNames,
    transport: HttpTransport,
    ping: Uri,
}

impl Connect for HttpReplicas {
    fn connect(&self, name: &str) -> Result<Arc<dyn Replica>, SourceError> {
        let attempted = || format!("use {name} as a replica of the cache");
        let unusable = |error: Box<dyn std::error::Error + Send + Sync>| {
            SourceError::caused_by(SourceErrorKind::Forbidden, attempted(), error)
        };
        let base = format!("http://{name}");
        let ping = Uri::from_str(&format!("{base}/v2/")).map_err(|error| unusable(error.into()))?;
        let credentials_of = RepositoryName::new(name, "cache").map_err(|error| unusable(error.into()))?;
        let upstream = Upstream::new(&base, credentials_of).map_err(|error| unusable(error.into()))?;
        let mut config = TransportConfig::default();
        config.guard = upstream.guard();
        config.system_roots = false;
        config.timeouts = TIMEOUTS;
        let transport = HttpTransport::new(config).map_err(|error| unusable(error.into()))?;
        // The set looks after its replicas.
        let limits = HostLimits::none();
        let client = RegistryClient::limited(transport.clone(), upstream, Anonymous, TIMEOUTS, limits);
        let client = client.telling_requests();
        Ok(Arc::new(HttpReplica { source: CacheNames::new(Arc::new(client)), transport, ping }))
    }
}

#[async_trait]
impl ContentSource for HttpReplica {
    forward!(this => &this.source; resolve, manifest, blob_size, blob, tags, referrers);
}

#[async_trait]
impl Replica for HttpReplica {
    async fn ping(&self) -> Result<(), SourceError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self.ping.clone();
        match self.transport.clone().oneshot(request).await {
            // Whatever it says, it is there.
            Ok(_) => Ok(()),
            Err(error) => {
                let attempted = format!("GET {}", self.ping);
                Err(SourceError::caused_by(SourceErrorKind::Unavailable, attempted, error).unreachable())
            }
        }
    }
}
