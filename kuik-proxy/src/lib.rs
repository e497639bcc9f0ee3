//! The OCI distribution API as tower services: a pull-through cache and a complete registry.
//!
//! A pull-through cache has three parts, composed as a deployment needs them:
//! - [`store`]: content stores, in a directory ([`store::FilesystemStore`]) or in a bucket;
//! - [`pull_through::PullThrough`]: a content source over a store and an upstream; it fetches each missing blob once,
//!   for any number of concurrent clients;
//! - [`service::ProxyService`]: the pull half of the API over any content source; [`serve`] runs it over HTTP and
//!   TLS.
//!
//! [`chain`] adds failover: the replicas of a cache first, then the origin.
//!
//! A complete registry adds:
//! - [`registry::push::RegistryService`]: pushes and deletes; pulls go to a `ProxyService`;
//! - [`registry::access::AccessLayer`]: authentication and access control;
//! - [`maintenance`]: online garbage collection, quotas with eviction, and scrubbing of stored content.
//!
//! `stack` assembles all of this from plain options, as tower layers.
//!
//! [`route`] parses the path and query of requests: a pure function.
//!
//! A pull-through cache as a tower service, from a directory and the registries of the internet:
//!
//! ```
//! # #[cfg(feature = "stack")]
//! # fn cache() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use kuik_proxy::kuik_core::{client::Upstreams, credentials::Anonymous, reference::PortForms};
//! use kuik_proxy::pull_through::PullThroughOptions;
//! use kuik_proxy::stack::{OriginOptions, origin_client, pull_through_cache};
//! use kuik_proxy::store::FilesystemStore;
//!
//! # let scratch = tempfile::tempdir()?;
//! # let directory = scratch.path();
//! let store = Arc::new(FilesystemStore::open(directory)?.as_cache());
//! let (origin, _transport) = origin_client(OriginOptions::new(Upstreams::default(), Anonymous))?;
//! let (options, ports) = (PullThroughOptions::default(), PortForms::default());
//! let cache = pull_through_cache(store, &origin, options, ports, None, None);
//! // `cache.frontend` is the service: for `kuik_proxy::serve::serve`, or a route of your own server.
//! # Ok(())
//! # }
//! # #[cfg(feature = "stack")]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async { cache() })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | default | gives |
//! |---|---|---|
//! | `object-storage` | no | content stores in S3, Google Cloud Storage and Azure buckets |
//! | `stack` | yes | assemblies of pull-through cache, registry and node proxy, with the client of other registries |
//!
//! # Where to go next
//!
//! - The examples: `pull_through_proxy` serves this cache, `axum_proxy` mounts it in an axum application with one's own
//!   layers, `custom_store` is a store of one's own, `copy_image` and `credential_provider` use the registry client.
//! - [`kuik_core::content`] has the traits of sources and stores, and [`kuik_core::client`] the client.
//! - `docs/embedding.md`: how the parts compose.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod chain;
mod fill;
pub mod maintenance;
pub mod pull_through;
pub mod registry;
pub mod route;
pub mod serve;
pub mod service;
#[cfg(feature = "stack")]
pub mod stack;
pub mod store;

#[doc(no_inline)]
pub use kuik_core;
#[doc(no_inline)]
pub use prometheus_client;
#[doc(no_inline)]
pub use tower;
