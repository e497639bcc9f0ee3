//! Shared types and traits of kuik, an image cache for Kubernetes: image references, content, credentials, failover.
//!
//! | module | content |
//! |---|---|
//! | [`mod@reference`] | image references: parsing, normalization, printing, proxy encoding |
//! | [`content`] | digests, descriptors, manifests, and the traits [`ContentSource`](content::ContentSource) (reads images) and [`ContentStore`](content::ContentStore) (stores them), which all components compose |
//! | [`retention`] | what a cluster tells its cache about the images it uses: document and names of the HTTP endpoint |
//! | [`rewrite`] | rewrite policies: which images of a pod go through the proxy, and why the others do not |
//! | [`credentials`] | registry credentials and the docker config format |
//! | [`failover`] | error handling across several sources, circuit breaker |
//! | [`error`] | chains of errors, as one line |
//! | [`trace`] | request ids and W3C Trace Context, propagated through every process |
//!
//! ```
//! use kuik_core::reference::{ImageReference, ProxyAuthority, decode, encode};
//!
//! let image = ImageReference::parse("registry:5000/app:1.2")?;
//! assert_eq!((image.registry(), image.tag()), ("registry:5000", Some("1.2")));
//!
//! let proxy = ProxyAuthority::localhost(7439);
//! let encoded = encode(&image, &proxy)?;
//! assert_eq!(encoded, "localhost:7439/registry__5000/app:1.2");
//! assert_eq!(decode(&encoded, &proxy).as_deref(), Some("registry:5000/app:1.2"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! Without features this crate has no async runtime, no TLS and no Kubernetes client: only pure functions, plain types
//! and traits.
//!
//! | feature | adds |
//! |---|---|
//! | `client` | client of any OCI registry, as a `ContentSource` over a tower service; `copy` between registries |
//! | `credential-plugins` | docker credential helpers and kubelet credential provider plugins |
//! | `ecr`, `google`, `azure` | credentials from the instance or workload identity of a cloud |
//! | `crd` | the custom resources `CachedImage` and `Repository`: types and schemas, without a client |
//! | `controller` | reconcilers of the custom resources over a Kubernetes API |
//!
//! Types of other crates in public signatures are re-exported, so that versions match: [`bytes`], [`http`], [`futures`]
//! and [`async_trait`](macro@async_trait); with `crd` also `k8s_openapi` and `kube_core`, with `controller` also
//! `kube_client` and `kube_runtime`.
//!
//! # Where to go next
//!
//! - The examples `parse_and_fuzz` and `operator`; `copy_image` and `credential_provider` of `kuik-proxy` use the client.
//! - `docs/embedding.md`: how to compose sources, stores, policies, credentials and reconcilers in your own program.
//! - `kuik-proxy`: the pull-through cache and registry as `tower` services.
//! - `kuik-webhook`: the admission webhook that rewrites pods.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
pub mod client;
pub mod content;
#[cfg(feature = "controller")]
pub mod controller;
#[cfg(feature = "client")]
pub mod copy;
#[cfg(feature = "crd")]
pub mod crd;
pub mod credentials;
pub mod digest;
pub mod error;
pub mod failover;
pub mod reference;
pub mod retention;
pub mod rewrite;
pub mod trace;

#[doc(no_inline)]
pub use async_trait::async_trait;
#[doc(no_inline)]
pub use bytes;
#[doc(no_inline)]
pub use futures;
#[doc(no_inline)]
pub use http;
#[cfg(feature = "crd")]
#[doc(no_inline)]
pub use k8s_openapi;
#[cfg(feature = "controller")]
#[doc(no_inline)]
pub use kube_client;
#[cfg(feature = "crd")]
#[doc(no_inline)]
pub use kube_core;
#[cfg(feature = "controller")]
#[doc(no_inline)]
pub use kube_runtime;
