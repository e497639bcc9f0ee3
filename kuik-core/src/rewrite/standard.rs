//! kuik's own rules, in their order: the first that applies decides.

use std::borrow::Cow;

use super::{ContainerContext, Decision, ImagePatterns, KeepReason, PullPolicy, RewritePolicy};
use crate::reference::{ImageReference, ProxyAuthority, decode, encode};

/// Rewrites every image, by tag or by digest, but keeps it where, in this order:
///
/// 1. the pull policy is `Never`;
/// 2. the pull policy is `Always`, or Kubernetes makes it that (unless [told otherwise](Self::with_always_kept));
/// 3. an ignore pattern matches;
/// 4. there are accept patterns, and none matches;
/// 5. it is not a reference;
/// 6. it cannot be written as a path of the proxy.
///
/// An image that points to this proxy already is judged by what it was made from, so that deciding again decides the
/// same.
///
/// ```
/// use kuik_core::reference::ProxyAuthority;
/// use kuik_core::rewrite::{ContainerContext, Decision, RewritePolicy, StandardPolicy};
///
/// let policy = StandardPolicy::new(ProxyAuthority::localhost(7439));
/// let image = "localhost:7439/nginx:1.25".to_owned();
/// assert_eq!(policy.decide("nginx:1.25", &ContainerContext::new("web")), Decision::Rewrite { image });
/// ```
#[derive(Debug, Clone)]
pub struct StandardPolicy {
    proxy: ProxyAuthority,
    patterns: ImagePatterns,
    always_kept: bool,
}

impl StandardPolicy {
    /// The policy for a proxy with no patterns.
    #[must_use]
    pub fn new(proxy: ProxyAuthority) -> Self {
        Self { proxy, patterns: ImagePatterns::default(), always_kept: true }
    }

    /// The same policy with patterns.
    #[must_use]
    pub fn with_patterns(self, patterns: ImagePatterns) -> Self {
        Self { patterns, ..self }
    }

    /// The same policy, with the second rule on (as it is by default) or off.
    #[must_use]
    pub fn with_always_kept(self, always_kept: bool) -> Self {
        Self { always_kept, ..self }
    }

    fn rewrite(&self, image: &str, container: &ContainerContext<'_>) -> Result<String, KeepReason> {
        let reference = ImageReference::parse(image);
        let original = decode(image, &self.proxy).unwrap_or(Cow::Borrowed(image));

        match container.pull_policy {
            Some(PullPolicy::Never) => return Err(KeepReason::PullPolicyNever),
            Some(PullPolicy::Always) if self.always_kept => return Err(KeepReason::PullPolicyAlways),
            None if self.always_kept
                && reference.is_ok_and(|image| image.tag_or_default() == Some("latest")) =>
            {
                return Err(KeepReason::PullPolicyAlwaysByDefault);
            }
            _ => {}
        }
        if let Some(pattern) = self.patterns.ignoring(&original) {
            return Err(KeepReason::Ignored { pattern });
        }
        if !self.patterns.accepts(&original) {
            return Err(KeepReason::NotAccepted);
        }
        let reference = reference.map_err(KeepReason::InvalidReference)?;
        encode(&reference, &self.proxy).map_err(KeepReason::CannotEncode)
    }
}

impl RewritePolicy for StandardPolicy {
    fn decide(&self, image: &str, container: &ContainerContext<'_>) -> Decision {
        match self.rewrite(image, container) {
            Ok(image) => Decision::Rewrite { image },
            Err(reason) => Decision::Keep(reason),
        }
    }
}
