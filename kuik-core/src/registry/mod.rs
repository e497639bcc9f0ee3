//! A client of any OCI registry, as a [`ContentSource`](crate::content::ContentSource), and for pushing to it.
//!
//! [`RegistryClient`] asks; an [`UpstreamResolver`] says where, in which order, a
//! [`CredentialProvider`](crate::credentials::CredentialProvider) as whom, and a [`RegistryTransport`] carries the
//! requests: any tower service, [`HttpTransport`] being the one over TCP and TLS. Nothing is spawned behind the
//! caller's back but what the connection pool of that transport needs; no wait and no size is without bound, and no
//! credential is ever printed or sent to another host.
//!
//! ```no_run
//! use kuik_core::{
//!     content::{ContentSource, Freshness, TagOrDigest},
//!     credentials::Anonymous,
//!     reference::RepositoryName,
//!     registry::{HttpTransport, RegistryClient, Timeouts, TransportConfig, UpstreamResolver as _, Upstreams},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let upstreams = Upstreams::default().insecure("registry.test:5000")?;
//! let mut config = TransportConfig::default();
//! config.guard = upstreams.guard();
//! let transport = HttpTransport::new(config)?;
//! let client = RegistryClient::new(transport, upstreams, Anonymous, Timeouts::default());
//!
//! let nginx = RepositoryName::new("docker.io", "library/nginx")?;
//! let latest = TagOrDigest::Tag("latest".parse()?);
//! let manifest = client.manifest(&nginx, &latest, Freshness::Cached).await?;
//! println!("{}", manifest.content.digest());
//! # Ok(())
//! # }
//! ```

mod about;
mod at;
mod auth;
mod avoided;
mod body;
mod challenge;
mod client;
mod connect;
mod egress;
mod exchange;
mod guard;
mod headers;
mod hosts;
mod push;
mod redirect;
mod row;
mod rule;
mod sending;
mod status;
mod token;
pub(crate) mod transport;
mod upstream;
mod upstreams;

pub use challenge::Challenge;
pub use client::RegistryClient;
pub use connect::{CertificateAuthorities, HttpTransport, InvalidTransport, TransportConfig};
pub use egress::{InvalidProxy, ProxyConfig};
pub use exchange::Timeouts;
pub use guard::{Guard, HostPort, InvalidHostPort, Refused};
pub use hosts::{HostLimits, HostReport, Outcome, Quota, RetryOptions};
pub use push::{Kept, PushError};
pub use rule::{Alternative, Policy, Source, UpstreamRule};
pub use transport::{Body, BoxError, RegistryTransport};
pub use upstream::{InvalidUpstream, Upstream, UpstreamResolver};
pub use upstreams::{LiveUpstreams, Upstreams};
