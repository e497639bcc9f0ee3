//! Which images are rewritten to the proxy, and why the others are kept.
//!
//! A [`RewritePolicy`] is a pure function of an image, as written in a pod, and the container that it is written in.
//! [`StandardPolicy`] is kuik's own; whoever embeds kuik may bring another. Nothing here changes a pod: callers put
//! a [`Decision`] into effect.

mod container;
mod keep;
mod patterns;
mod standard;

pub use container::{ContainerContext, PullPolicy, UnknownPullPolicy};
pub use keep::KeepReason;
pub use patterns::{BadPattern, ImagePatterns, InvalidPatterns, PatternList};
pub use standard::StandardPolicy;

/// The label by which a pod opts out of being rewritten and of having its images kept, with the value
/// [`OPT_OUT_VALUE`].
pub const OPT_OUT_LABEL: &str = "kube-image-keeper.enix.io/image-caching-policy";

/// What [`OPT_OUT_LABEL`] says on a pod that opts out.
pub const OPT_OUT_VALUE: &str = "ignore";

/// Decides for every image of a pod whether it is pulled through the proxy.
///
/// ```
/// use kuik_core::rewrite::{ContainerContext, Decision, KeepReason, RewritePolicy};
///
/// /// Sends nothing through the proxy.
/// struct Off;
///
/// impl RewritePolicy for Off {
///     fn decide(&self, _image: &str, _container: &ContainerContext<'_>) -> Decision {
///         Decision::Keep(KeepReason::NotAccepted)
///     }
/// }
/// ```
pub trait RewritePolicy: Send + Sync + 'static {
    /// What becomes of `image`, which is anything that the pod has there: policies see what does not parse too,
    /// because their rules about pull policies and patterns come first.
    fn decide(&self, image: &str, container: &ContainerContext<'_>) -> Decision;
}

/// What becomes of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is to be pulled through the proxy.
    Rewrite {
        /// What stands in the pod then; the image as it was where it pointed to the proxy already.
        image: String,
    },
    /// It stays as it is.
    Keep(KeepReason),
}
