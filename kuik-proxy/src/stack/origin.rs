//! The client of origin registries: one constructor, so that the SSRF guard and the timeouts are set once.

use kuik_core::{
    client::{
        CertificateAuthorities, HttpTransport, InvalidTransport, ProxyConfig, RegistryClient, Timeouts,
        TransportConfig, UpstreamResolver as _, Upstreams,
    },
    credentials::CredentialProvider,
};

/// Which registries a client reaches, and how.
#[derive(Debug)]
pub struct OriginOptions<C> {
    /// Upstreams: mirrors, fallbacks and exceptions per registry. The SSRF guard follows from them.
    pub upstreams: Upstreams,
    /// Credentials for them.
    pub credentials: C,
    /// Certificate authorities to trust besides the system's.
    pub roots: Vec<CertificateAuthorities>,
    /// Forward proxies.
    pub proxy: ProxyConfig,
}

impl<C> OriginOptions<C> {
    /// Returns options with the system's certificate authorities and no forward proxy.
    #[must_use]
    pub fn new(upstreams: Upstreams, credentials: C) -> Self {
        Self { upstreams, credentials, roots: Vec::new(), proxy: ProxyConfig::default() }
    }
}

/// Returns a client of origin registries, and its transport, whose certificate authorities can be replaced later.
///
/// # Errors
/// Returns an error if a certificate or a forward proxy is unusable.
pub fn origin_client<C: CredentialProvider>(
    options: OriginOptions<C>,
) -> Result<(RegistryClient, HttpTransport), InvalidTransport> {
    let mut config = TransportConfig::default();
    config.guard = options.upstreams.guard();
    config.extra_roots = options.roots;
    config.proxy = options.proxy;
    let transport = HttpTransport::new(config)?;
    let client =
        RegistryClient::new(transport.clone(), options.upstreams, options.credentials, Timeouts::default());
    Ok((client, transport))
}
