//! Constructors over the default transport: one for upstream registries, one for a cache.
//!
//! Invariant: guard and timeouts have one source each. The guard follows from the upstreams, so that a client cannot
//! reach an address that they do not name; the timeouts are those of the [`TransportConfig`].

use std::time::Duration;

use super::{
    HostLimits, HttpTransport, InvalidTransport, InvalidUpstream, RegistryClient, TransportConfig, Upstream,
    UpstreamResolver,
};
use crate::credentials::CredentialProvider;

/// A client of a cache cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCache {
    /// Its URL is unusable.
    #[error(transparent)]
    Url(#[from] InvalidUpstream),
    /// A certificate authority or a proxy is unusable.
    #[error(transparent)]
    Transport(#[from] InvalidTransport),
}

impl RegistryClient {
    /// Returns a client of any registry, with the upstreams that `upstreams` resolves.
    ///
    /// The guard of `transport` is replaced by that of `upstreams`; its timeouts apply to connections and requests. To
    /// share a transport or to replace its certificate authorities later, use [`new`](Self::new).
    ///
    /// ```
    /// use kuik_core::client::{RegistryClient, TransportConfig, Upstreams};
    /// use kuik_core::credentials::Anonymous;
    ///
    /// let upstreams = Upstreams::default().insecure("registry.test:5000")?;
    /// let client = RegistryClient::of_upstreams(upstreams, Anonymous, TransportConfig::default())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if a certificate authority or a proxy is unusable.
    pub fn of_upstreams(
        upstreams: impl UpstreamResolver,
        credentials: impl CredentialProvider,
        transport: TransportConfig,
    ) -> Result<Self, InvalidTransport> {
        Self::connected(upstreams, credentials, transport, HostLimits::default())
    }

    /// Returns a client of the cache at `url` (`http://cache:5000`, `https://registry.example`), for reading and for
    /// pushing. It may have any address, and contacts no other host.
    ///
    /// `Retry-After` of a cache does not pause the client: it usually comes from one of the registries behind the cache,
    /// and all others are reachable. Otherwise like [`of_upstreams`](Self::of_upstreams).
    ///
    /// # Errors
    /// Returns an error if the URL, a certificate authority or a proxy is unusable.
    pub fn of_cache(
        url: &str,
        credentials: impl CredentialProvider,
        transport: TransportConfig,
    ) -> Result<Self, InvalidCache> {
        let cache = Upstream::registry(url)?;
        let limits = HostLimits { longest_pause: Duration::ZERO, ..HostLimits::default() };
        Ok(Self::connected(cache, credentials, transport, limits)?)
    }

    fn connected(
        upstreams: impl UpstreamResolver,
        credentials: impl CredentialProvider,
        mut config: TransportConfig,
        limits: HostLimits,
    ) -> Result<Self, InvalidTransport> {
        config.guard = upstreams.guard();
        let timeouts = config.timeouts;
        Ok(Self::limited(HttpTransport::new(config)?, upstreams, credentials, timeouts, limits))
    }
}
