//! What a cluster has to be told of the custom resources before it keeps any.
//!
//! Invariant: the schemas are structural, and say nothing that Kubernetes 1.20 does not understand. So they have no rules
//! in CEL, and what only code can tell (whether an image is a reference at all) is refused by the webhook.

use kube_core::CustomResourceExt as _;

use super::{CachedImage, CustomResourceDefinition, Repository};

/// The definitions of all custom resources, as `kuik crds` prints them.
#[must_use]
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [CachedImage::crd(), Repository::crd()]
}
