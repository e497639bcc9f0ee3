//! Copiers into the cache, with the client of the cache that they use.

use std::{sync::Arc, time::Duration};

use kuik_core::{
    client::{
        CacheEndpoint, CertificateAuthorities, HostLimits, HttpTransport, RegistryClient, Timeouts,
        TransportConfig, UpstreamResolver as _,
    },
    content::ContentSource,
    copy::{ImageCopier, PrefetchCopier, PushCopier, WantedPlatforms},
    credentials::CredentialProvider,
};

use crate::cli_error::CliError;

/// Returns the copier into the cache that `cache` is a client of.
///
/// A pull-through cache is read through; into any other registry, images are pushed from `source`.
pub fn copier(
    cache: RegistryClient,
    fills_itself: bool,
    source: Arc<dyn ContentSource>,
    platforms: Arc<dyn WantedPlatforms>,
) -> Arc<dyn ImageCopier> {
    if fills_itself {
        Arc::new(PrefetchCopier::new(cache, platforms))
    } else {
        Arc::new(PushCopier::new(source, cache, platforms))
    }
}

/// Returns a client of the cache at `endpoint`, and its transport, whose certificate authorities can be replaced later.
///
/// `roots` are trusted instead of the system's certificate authorities, if there are any.
///
/// # Errors
/// Returns an error if a certificate is unusable.
pub fn cache_client(
    endpoint: &CacheEndpoint,
    roots: Vec<CertificateAuthorities>,
    credentials: impl CredentialProvider,
) -> Result<(RegistryClient, HttpTransport), CliError> {
    let upstream = endpoint.upstream();
    let mut config = TransportConfig::default();
    config.guard = upstream.guard();
    config.system_roots = endpoint.is_https() && roots.is_empty();
    config.extra_roots = roots;
    let transport = HttpTransport::new(config).map_err(CliError::usage)?;
    // A pause that the cache asks for concerns the registry of one image; the cache has those of all others as well.
    let mut limits = HostLimits::default();
    limits.longest_pause = Duration::ZERO;
    let client =
        RegistryClient::limited(transport.clone(), upstream, credentials, Timeouts::default(), limits);
    Ok((client, transport))
}
