//! The standard policy: kuik's own rules, of which the first that applies decides.

use super::{
    ContainerContext, Decision, ImagePatterns, KeepReason, Placement, PullPolicy, RewritePolicy,
    loopback::LoopbackExemptions,
};
use crate::reference::ImageReference;

/// Rewrites every image, by tag or by digest, except if, in this order:
///
/// 1. the pod runs on a node without a proxy: Windows, or a virtual node;
/// 2. the node may need the pod before it can run the proxy (unless [disabled](Self::with_node_critical_kept));
/// 3. the pull policy is `Never`;
/// 4. the pull policy is `Always`, or defaults to it (unless [disabled](Self::with_always_kept));
/// 5. an ignore pattern matches;
/// 6. accept patterns are configured, and none matches;
/// 7. the registry is on the node's loopback interface (unless [exempt](Self::with_loopback_registries)).
///
/// A [`Rewriter`](super::Rewriter) then keeps images that are not valid references or cannot be encoded.
///
/// ```
/// use kuik_core::rewrite::{ContainerContext, Decision, RewritePolicy, StandardPolicy};
///
/// let policy = StandardPolicy::new();
/// assert_eq!(policy.decide("nginx:1.25", &ContainerContext::new("web")), Decision::Rewrite);
/// ```
#[derive(Debug, Clone)]
pub struct StandardPolicy {
    patterns: ImagePatterns,
    always_kept: bool,
    node_critical_kept: bool,
    loopback: LoopbackExemptions,
}

impl StandardPolicy {
    /// The policy without patterns and exemptions.
    #[must_use]
    pub fn new() -> Self {
        Self {
            patterns: ImagePatterns::default(),
            always_kept: true,
            node_critical_kept: true,
            loopback: LoopbackExemptions::default(),
        }
    }

    /// Sets the ignore and accept patterns.
    #[must_use]
    pub fn with_patterns(self, patterns: ImagePatterns) -> Self {
        Self { patterns, ..self }
    }

    /// Enables (default) or disables the rule about the pull policy `Always`.
    #[must_use]
    pub fn with_always_kept(self, always_kept: bool) -> Self {
        Self { always_kept, ..self }
    }

    /// Enables (default) or disables the rule about pods that a node needs before it can run the proxy.
    #[must_use]
    pub fn with_node_critical_kept(self, node_critical_kept: bool) -> Self {
        Self { node_critical_kept, ..self }
    }

    /// Exempts loopback registries, given as `HOST` or `HOST:PORT`: those that the proxy can reach and may contact.
    #[must_use]
    pub fn with_loopback_registries<R: Into<String>>(self, registries: impl IntoIterator<Item = R>) -> Self {
        Self { loopback: LoopbackExemptions::new(registries), ..self }
    }

    /// Returns why no image of a pod is rewritten.
    fn pod_reason(&self, placement: Placement) -> Option<KeepReason> {
        match placement {
            pod if pod.is_windows() => Some(KeepReason::WindowsNode),
            pod if pod.is_virtual() => Some(KeepReason::VirtualNode),
            pod if self.node_critical_kept && pod.is_node_critical() => Some(KeepReason::NodeCritical),
            _ => None,
        }
    }

    fn image_reason(&self, image: &str, container: &ContainerContext<'_>) -> Option<KeepReason> {
        match container.pull_policy {
            Some(PullPolicy::Never) => return Some(KeepReason::PullPolicyNever),
            Some(PullPolicy::Always) if self.always_kept => return Some(KeepReason::PullPolicyAlways),
            None if self.always_kept && defaults_to_always(image) => {
                return Some(KeepReason::PullPolicyAlwaysByDefault);
            }
            _ => {}
        }
        if let Some(pattern) = self.patterns.ignoring(image) {
            return Some(KeepReason::Ignored { pattern });
        }
        if !self.patterns.accepts(image) {
            return Some(KeepReason::NotAccepted);
        }
        let reference = ImageReference::parse(image).ok()?;
        self.loopback.forbid(reference.registry()).then_some(KeepReason::LoopbackRegistry)
    }
}

impl Default for StandardPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether Kubernetes defaults the pull policy of this image to `Always`.
fn defaults_to_always(image: &str) -> bool {
    ImageReference::parse(image).is_ok_and(|reference| reference.tag_or_default() == Some("latest"))
}

impl RewritePolicy for StandardPolicy {
    fn decide(&self, image: &str, container: &ContainerContext<'_>) -> Decision {
        let reason = self.pod_reason(container.pod.placement);
        match reason.or_else(|| self.image_reason(image, container)) {
            Some(reason) => Decision::Keep(reason),
            None => Decision::Rewrite,
        }
    }
}
