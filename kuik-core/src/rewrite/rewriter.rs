//! Applies a policy to images, for one proxy.
//!
//! Invariant: a policy never sees the proxy's address. The image is decoded before the policy decides and encoded after
//! it, so a policy without knowledge of the proxy decides the same about a rewritten image as about the original. An
//! image that already goes through the proxy is never changed.

use std::{borrow::Cow, fmt, sync::Arc};

use super::{ContainerContext, Decision, KeepReason, RewritePolicy};
use crate::reference::{ImageReference, ProxyAuthority, decode, encode};

/// A policy, and the proxy that images are rewritten to. Cheap to clone.
///
/// ```
/// use kuik_core::{
///     reference::ProxyAuthority,
///     rewrite::{ContainerContext, ImageRewrite, Rewriter, StandardPolicy},
/// };
///
/// let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new());
/// let container = ContainerContext::new("web");
/// let image = "localhost:7439/nginx:1.25".to_owned();
/// assert_eq!(rewriter.rewrite("localhost:7439/nginx:1.25", &container), ImageRewrite::AlreadyRewritten);
/// assert_eq!(rewriter.rewrite("nginx:1.25", &container), ImageRewrite::Rewritten { image });
/// ```
#[derive(Clone)]
pub struct Rewriter {
    proxy: ProxyAuthority,
    policy: Arc<dyn RewritePolicy>,
}

/// The result of applying a policy to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRewrite {
    /// The image is replaced, to be pulled through the proxy.
    Rewritten {
        /// The replacement.
        image: String,
    },
    /// The image already goes through the proxy, as the policy wants.
    AlreadyRewritten,
    /// The image stays unchanged.
    Kept(KeepReason),
}

impl Rewriter {
    /// Applies `policy` to images, and rewrites them to `proxy`.
    #[must_use]
    pub fn new(proxy: ProxyAuthority, policy: impl RewritePolicy) -> Self {
        Self { proxy, policy: Arc::new(policy) }
    }

    /// Replaces the policy.
    #[must_use]
    pub fn with_policy(self, policy: impl RewritePolicy) -> Self {
        Self { policy: Arc::new(policy), ..self }
    }

    /// Returns the proxy that images are rewritten to.
    #[must_use]
    pub fn proxy(&self) -> &ProxyAuthority {
        &self.proxy
    }

    /// Applies the policy to `image`, as it stands in a pod.
    #[must_use]
    pub fn rewrite(&self, image: &str, container: &ContainerContext<'_>) -> ImageRewrite {
        let original = self.original(image).unwrap_or(Cow::Borrowed(image));
        match self.policy.decide(&original, container) {
            Decision::Keep(reason) => ImageRewrite::Kept(reason),
            Decision::Rewrite => match self.encoded(image) {
                Ok(encoded) if encoded == image => ImageRewrite::AlreadyRewritten,
                Ok(image) => ImageRewrite::Rewritten { image },
                Err(reason) => ImageRewrite::Kept(reason),
            },
        }
    }

    /// Returns the original of an image that goes through the proxy, or `None` if it does not.
    ///
    /// The original can be any text if `image` was not written by this rewriter.
    #[must_use]
    pub fn original<'a>(&self, image: &'a str) -> Option<Cow<'a, str>> {
        decode(image, &self.proxy)
    }

    fn encoded(&self, image: &str) -> Result<String, KeepReason> {
        let reference = ImageReference::parse(image).map_err(KeepReason::InvalidReference)?;
        encode(&reference, &self.proxy).map_err(KeepReason::CannotEncode)
    }
}

impl fmt::Debug for Rewriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewriter").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}
