//! Rewrites the images of pods, so that nodes pull them through a caching proxy: as pure functions on JSON, and as a
//! mutating admission webhook.
//!
//! ```
//! use kuik_core::{
//!     reference::ProxyAuthority,
//!     rewrite::{Rewriter, StandardPolicy},
//! };
//! use kuik_webhook::pod::{PodMetadata, decide};
//! use serde_json::json;
//!
//! let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new());
//! let pod = json!({ "metadata": {}, "spec": { "containers": [{ "name": "web", "image": "nginx:1.25" }] } });
//! let metadata = PodMetadata::new(&pod["metadata"], &pod["spec"]);
//! let decisions = decide(&pod["spec"], "/spec", metadata.context(), &rewriter);
//! assert_eq!(decisions.decided[0].source.pointer, "/spec/containers/0/image");
//! assert_eq!(decisions.decided[0].change(), Some("localhost:7439/nginx:1.25"));
//! ```
//!
//! # Features
//!
//! | feature | module | adds |
//! |---|---|---|
//! | (none) | [`pod`] | finds every image of a pod spec, and applies a policy to it |
//! | `admission` | `admission` | the webhook as a tower service: an `AdmissionReview` in, a JSON Patch out |
//! | `certificates` | `certificates` | a CA and serving certificate for the webhook, shared by replicas and rotated |
//!
//! # Where to go next
//!
//! - [`kuik_core::rewrite`] has the policies: implement [`RewritePolicy`](kuik_core::rewrite::RewritePolicy) for your own
//!   rules. The example `custom_policy` does so by namespace and label.
//! - `admission::AdmissionService` mounts in any hyper or axum server: see the example `axum_webhook`.
//! - `certificates::Rotator` replaces cert-manager.
//!
//! Invariant: only the fields that change are ever touched, so that unknown fields of a pod are never lost.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "admission")]
pub mod admission;
#[cfg(feature = "certificates")]
pub mod certificates;
pub mod pod;

#[doc(no_inline)]
pub use kuik_core;
