//! OCI registry client: a [`ContentSource`](crate::content::ContentSource) that can also push.
//!
//! [`RegistryClient`] sends the requests: [`RegistryClient::of_upstreams`] makes one for any registry,
//! [`RegistryClient::of_cache`] one for a cache. An [`UpstreamResolver`] gives the ordered upstreams of a repository, a
//! [`CredentialProvider`](crate::credentials::CredentialProvider) the credentials, and a [`RegistryTransport`] carries
//! the requests: any tower service; [`HttpTransport`] is the one over TCP and TLS. The client spawns no tasks except
//! those of the transport's connection pool. Every wait and every size is bounded. Credentials are never logged and
//! never sent to another host.
//!
//! ```no_run
//! use kuik_core::{content::{ContentSource, Freshness, TagOrDigest}, credentials::Anonymous, reference::RepositoryName};
//! use kuik_core::client::{RegistryClient, TransportConfig, Upstreams};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let upstreams = Upstreams::default().insecure("registry.test:5000")?;
//! let client = RegistryClient::of_upstreams(upstreams, Anonymous, TransportConfig::default())?;
//!
//! let nginx = RepositoryName::new("docker.io", "library/nginx")?;
//! let latest = TagOrDigest::Tag("latest".parse()?);
//! let manifest = client.manifest(&nginx, &latest, Freshness::Cached).await?;
//! println!("{}", manifest.content.digest());
//! # Ok(())
//! # }
//! ```

pub(crate) mod api;
mod auth;
#[expect(clippy::module_inception)]
mod client;
mod constructors;
mod fallback;
mod hosts;
pub(crate) mod transport;
mod upstreams;

pub(crate) use api::capacity::{Capacity, MakeRoom};
pub use api::push::{PushError, PushedManifest};
pub use api::retention::RetentionError;
pub use auth::challenge::Challenge;
pub use client::RegistryClient;
pub use constructors::InvalidCache;
pub use hosts::{HostLimits, HostReport, Outcome, Quota, RetryOptions};
pub use transport::connect::{CertificateAuthorities, HttpTransport, InvalidTransport, TransportConfig};
pub use transport::egress::{InvalidProxy, ProxyConfig};
pub use transport::guard::{Guard, Refused};
pub use transport::host_port::{HostPort, InvalidHostPort};
pub use transport::insecure::InsecureRegistry;
pub use transport::sender::Timeouts;
pub use transport::{Body, BoxError, RegistryTransport};
pub use upstreams::cache_endpoint::{CacheEndpoint, InvalidCacheEndpoint};
pub use upstreams::rule::{Alternative, Policy, Source, UpstreamRule};
pub use upstreams::upstream::{InvalidUpstream, Upstream, UpstreamResolver};
pub use upstreams::{LiveUpstreams, Upstreams};
