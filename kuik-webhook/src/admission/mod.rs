//! The mutating admission webhook for pods and CachedImages.
//!
//! - [`AdmissionService`] is a tower service over `http::Request`, for any hyper or axum server;
//!   [`AdmissionOptions`] has its settings.
//! - [`patch_pod`] and [`patch_cached_image`] are its pure decisions.
//!
//! Invariant: a pod is never denied, and only the fields that [`patch_pod`] documents change. A body that is not a review
//! gets an HTTP error, and with `failurePolicy: Ignore` the pod is then created unchanged.

mod body;
mod cached_image;
mod filter;
mod metrics;
mod options;
mod patch;
mod pod;
mod projection;
mod response;
mod review;
mod service;

pub use kube_core::Selector;

pub use cached_image::{Denial, patch_cached_image};
pub use filter::SkipReason;
pub use metrics::AdmissionMetrics;
pub use options::{AdmissionOptions, CACHED_IMAGE_PATH, POD_PATH};
pub use patch::{Operation as PatchOperation, Patch};
pub use pod::{ImageOutcome, PodChange, PodPatch, patch_pod};
pub use review::Operation;
pub use service::AdmissionService;
