//! The admission webhook: the API server asks about a pod or a CachedImage, and is told what to change in it.
//!
//! - [`AdmissionService`] is a tower service over `http::Request`, for any hyper or axum server.
//! - [`patch_pod`] and [`patch_cached_image`] decide, as pure functions; what they need of a review is all that is read.
//! - [`IgnoredNamespaces`]: which pods are left alone, besides those that the webhook's configuration does not send.
//!
//! Invariant: a pod is never refused, and changed in nothing but what [`patch_pod`] names. What cannot be understood is
//! an HTTP error, which the webhook's failure policy turns into a pod as it was written.

mod answer;
mod cached_image;
mod filter;
mod intake;
mod mask;
mod metrics;
mod patch;
mod pod;
mod review;
mod service;

pub use cached_image::{Refusal, patch_cached_image};
pub use filter::{IgnoredNamespaces, LeftAlone};
pub use metrics::AdmissionMetrics;
pub use patch::{Operation as PatchOperation, Patch};
pub use pod::{ImageOutcome, PodChange, PodPatch, patch_pod};
pub use review::Operation;
pub use service::{Admission, AdmissionService, CACHED_IMAGE_PATH, POD_PATH};
