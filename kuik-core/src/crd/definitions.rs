//! CustomResourceDefinitions.
//!
//! Invariant: the schemas are structural and use only features of Kubernetes 1.20. So they have no CEL rules; checks
//! that need code (whether an image reference is valid) are done by the webhook.

use kube_core::CustomResourceExt as _;

use super::{CachedImage, CustomResourceDefinition, Repository};

/// Returns the definitions of all custom resources, as printed by `kuik crds`.
#[must_use]
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [CachedImage::crd(), Repository::crd()]
}
