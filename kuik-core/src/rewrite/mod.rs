//! Rewrite policies: which images are pulled through the proxy, and why the others are not.
//!
//! A [`RewritePolicy`] is a pure function of an image and the [container](ContainerContext) that uses it.
//! [`StandardPolicy`] is kuik's own; embedders can implement another. A [`Rewriter`] applies a policy for one proxy:
//! it decodes, asks the policy, and encodes. Nothing here changes a pod.

mod annotations;
mod container;
mod earlier;
mod keep;
mod loopback;
mod patterns;
mod placement;
mod rewriter;
mod standard;

use std::sync::Arc;

pub use annotations::{
    MANAGED_LABEL, REWRITE_IMAGES_ANNOTATION, original_image_annotation, original_init_image_annotation,
};
pub use container::{ContainerContext, PodContext, PullPolicy, UnknownPullPolicy};
pub use earlier::is_rewriting_of;
pub use keep::KeepReason;
pub use patterns::{BadPattern, ImagePatterns, InvalidPatterns, PatternList};
pub use placement::{Placement, Toleration};
pub use rewriter::{ImageRewrite, Rewriter};
pub use standard::StandardPolicy;

/// Label by which a pod opts out of rewriting and caching, with the value [`OPT_OUT_VALUE`].
pub const OPT_OUT_LABEL: &str = "kube-image-keeper.enix.io/image-caching-policy";

/// Value of [`OPT_OUT_LABEL`] on a pod that opts out.
pub const OPT_OUT_VALUE: &str = "ignore";

/// Decides for each image of a pod whether it is pulled through the proxy.
///
/// A policy sees images as their authors wrote them, also in a pod that is already rewritten.
///
/// ```
/// use kuik_core::rewrite::{ContainerContext, Decision, KeepReason, RewritePolicy};
///
/// /// Rewrites the images of one registry, except in sandbox namespaces.
/// struct QuayOnly;
///
/// impl RewritePolicy for QuayOnly {
///     fn decide(&self, image: &str, container: &ContainerContext<'_>) -> Decision {
///         if container.pod.namespace.starts_with("sandbox-") {
///             return Decision::Keep(KeepReason::custom("sandbox", "sandboxes pull directly"));
///         }
///         if image.starts_with("quay.io/") { Decision::Rewrite } else { Decision::Keep(KeepReason::NotAccepted) }
///     }
/// }
/// ```
pub trait RewritePolicy: Send + Sync + 'static {
    /// Decides about `image`, which is never prefixed by the proxy's address. It may be any text: policies are asked
    /// before the image is parsed, because their rules about pull policies and patterns come first.
    fn decide(&self, image: &str, container: &ContainerContext<'_>) -> Decision;
}

/// The decision of a policy about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Pull the image through the proxy, if it is a reference that can be encoded.
    Rewrite,
    /// Leave the image unchanged.
    Keep(KeepReason),
}

impl<P: RewritePolicy + ?Sized> RewritePolicy for Arc<P> {
    fn decide(&self, image: &str, container: &ContainerContext<'_>) -> Decision {
        (**self).decide(image, container)
    }
}
