//! Assembles what puts images into the cache: a client of the cache, one of other registries, and the way between.

use std::{sync::Arc, time::Duration};

use kuik_core::{
    content::ContentSource,
    copy::{ImageCopier, PushCopier, WantedPlatforms, WarmCopier},
    credentials::{Credential, Secret},
    reference::RepositoryName,
    registry::{
        HostLimits, HttpTransport, RegistryClient, Timeouts, TransportConfig, Upstream, UpstreamResolver as _,
    },
};

use crate::command::Failure;

/// What puts images into the cache at `endpoint`, which is asked over plain http with `token`.
///
/// A cache that fetches itself what it is asked for is read through. Into any other, images are pushed that `source` has.
///
/// # Errors
/// Where the endpoint is unusable.
pub fn copier(
    endpoint: &str,
    token: Option<Secret>,
    fills_itself: bool,
    source: Arc<dyn ContentSource>,
    platforms: Arc<dyn WantedPlatforms>,
) -> Result<Arc<dyn ImageCopier>, Failure> {
    let cache = cache_client(endpoint, token)?;
    Ok(if fills_itself {
        Arc::new(WarmCopier::new(cache, platforms))
    } else {
        Arc::new(PushCopier::new(source, cache, platforms))
    })
}

fn cache_client(endpoint: &str, token: Option<Secret>) -> Result<RegistryClient, Failure> {
    let credentials_of = RepositoryName::new(endpoint, "cache").map_err(Failure::usage)?;
    let upstream = Upstream::new(&format!("http://{endpoint}"), credentials_of).map_err(Failure::usage)?;
    let mut config = TransportConfig::default();
    config.guard = upstream.guard();
    config.system_roots = false;
    let transport = HttpTransport::new(config).map_err(Failure::usage)?;
    // The name is of no account: the token opens.
    let credentials: Vec<_> = token.into_iter().map(|token| Credential::basic("kuik", token)).collect();
    // What a cache says of waiting it says of the registry that an image is from, and it has those of all others as well.
    let mut limits = HostLimits::default();
    limits.longest_hold = Duration::ZERO;
    Ok(RegistryClient::limited(transport, upstream, credentials, Timeouts::default(), limits))
}
