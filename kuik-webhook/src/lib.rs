//! Rewrites the images of pods: as pure functions over a pod, and as an admission webhook.
//!
//! - [`pod`]: finds every place of a pod spec that names an image, and asks a policy about each of them.
#![cfg_attr(
    feature = "admission",
    doc = "- [`admission`]: a review of the API server in, a JSON Patch out, as a tower service."
)]
#![cfg_attr(
    feature = "certificates",
    doc = "- [`certificates`]: the webhook's own certificate, shared by replicas and renewed in time."
)]
//!
//! Invariant: only the fields that change are ever touched, so that a field that this build has never heard of survives.

#[cfg(feature = "admission")]
pub mod admission;
#[cfg(feature = "certificates")]
pub mod certificates;
pub mod pod;
