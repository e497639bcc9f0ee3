//! Reasons for not rewriting an image.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::reference::{CannotEncode, ReferenceError};

/// Why an image is not rewritten. `Display` is for logs and reports, [`KeepReason::as_label`] for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepReason {
    /// The pod has the opt-out label.
    PodOptedOut,
    /// The pod's author has set the annotation `kuik.enix.io/rewrite-images` to `"false"`.
    RewritingDisabled,
    /// The pod's namespace is ignored.
    NamespaceIgnored,
    /// The pod's labels do not match the selector.
    NotSelected,
    /// The pod is the mirror of a static pod, whose images are in a file of its node.
    MirrorPod,
    /// The pod's node may need it before it can run the proxy.
    NodeCritical,
    /// The pod runs on a Windows node, which has no proxy.
    WindowsNode,
    /// The pod runs on a virtual node, which has no proxy.
    VirtualNode,
    /// The pull policy is `Never`: the node does not pull.
    PullPolicyNever,
    /// The pull policy is `Always`: the pod asks for the registry's current content.
    PullPolicyAlways,
    /// No pull policy is set and the tag is `latest` or absent: Kubernetes defaults to `Always`.
    PullPolicyAlwaysByDefault,
    /// An ignore pattern matches.
    Ignored {
        /// The pattern.
        pattern: Arc<str>,
    },
    /// Accept patterns are configured, and none matches.
    NotAccepted,
    /// The registry is on the node's own loopback interface, where the proxy cannot reach it.
    LoopbackRegistry,
    /// The image is not a valid reference.
    InvalidReference(ReferenceError),
    /// The image cannot be encoded as a path of the proxy.
    CannotEncode(CannotEncode),
    /// A reason of a custom policy; see [`KeepReason::custom`].
    Custom {
        /// Metric label.
        label: &'static str,
        /// Text for logs and reports.
        message: Cow<'static, str>,
    },
}

impl KeepReason {
    /// A reason of a custom policy.
    ///
    /// The `label` becomes a metric label of lower-case letters and `_`. It is static, so that the number of time series
    /// is bounded; details such as the name of a team belong in the `message`.
    ///
    /// ```
    /// use kuik_core::rewrite::KeepReason;
    ///
    /// let reason = KeepReason::custom("team_opted_out", format!("team {} opted out", "checkout"));
    /// assert_eq!(reason.to_string(), "team checkout opted out");
    /// ```
    #[must_use]
    pub fn custom(label: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Custom { label, message: message.into() }
    }

    /// Returns true if the reason concerns the whole pod, or is that of a custom policy. A pod whose images are all kept
    /// for such reasons is not managed by kuik, and gets neither label nor annotation.
    #[must_use]
    pub fn leaves_pod_unmanaged(&self) -> bool {
        match self {
            Self::PodOptedOut
            | Self::NamespaceIgnored
            | Self::NotSelected
            | Self::MirrorPod
            | Self::NodeCritical
            | Self::WindowsNode
            | Self::VirtualNode
            | Self::Custom { .. } => true,
            Self::RewritingDisabled
            | Self::PullPolicyNever
            | Self::PullPolicyAlways
            | Self::PullPolicyAlwaysByDefault
            | Self::Ignored { .. }
            | Self::NotAccepted
            | Self::LoopbackRegistry
            | Self::InvalidReference(_)
            | Self::CannotEncode(_) => false,
        }
    }

    /// Returns a stable identifier for metrics and programs, of lower-case letters and `_`.
    #[must_use]
    pub fn as_label(&self) -> &'static str {
        match self {
            Self::PodOptedOut => "pod_opted_out",
            Self::RewritingDisabled => "rewriting_disabled",
            Self::NamespaceIgnored => "namespace_ignored",
            Self::NotSelected => "not_selected",
            Self::MirrorPod => "mirror_pod",
            Self::NodeCritical => "node_critical",
            Self::WindowsNode => "windows_node",
            Self::VirtualNode => "virtual_node",
            Self::PullPolicyNever => "pull_policy_never",
            Self::PullPolicyAlways => "pull_policy_always",
            Self::PullPolicyAlwaysByDefault => "pull_policy_always_by_default",
            Self::Ignored { .. } => "ignored",
            Self::NotAccepted => "not_accepted",
            Self::LoopbackRegistry => "loopback_registry",
            Self::InvalidReference(_) => "invalid_reference",
            Self::CannotEncode(_) => "cannot_encode",
            Self::Custom { label, .. } => label,
        }
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodOptedOut => f.write_str("pod opted out by label"),
            Self::RewritingDisabled => f.write_str("pod opted out by annotation"),
            Self::NamespaceIgnored => f.write_str("namespace is ignored"),
            Self::NotSelected => f.write_str("pod does not match the selector"),
            Self::MirrorPod => f.write_str("pod is a mirror of a static pod"),
            Self::NodeCritical => f.write_str("the node may need this pod before it can run the proxy"),
            Self::WindowsNode => f.write_str("pod runs on a Windows node, which has no proxy"),
            Self::VirtualNode => f.write_str("pod runs on a virtual node, which has no proxy"),
            Self::PullPolicyNever => f.write_str("pull policy is Never"),
            Self::PullPolicyAlways => f.write_str("pull policy is Always"),
            Self::PullPolicyAlwaysByDefault => {
                f.write_str("no pull policy is set, which means Always for the tag latest")
            }
            Self::Ignored { pattern } => write!(f, "ignore pattern {pattern:?} matches"),
            Self::NotAccepted => f.write_str("no accept pattern matches"),
            Self::LoopbackRegistry => {
                f.write_str("its registry is on the node's loopback interface, which the proxy cannot reach")
            }
            Self::InvalidReference(error) => write!(f, "not an image reference: {error}"),
            Self::CannotEncode(CannotEncode::NotAReference(error)) => {
                write!(f, "not an image reference after the proxy's prefix: {error}")
            }
            Self::CannotEncode(reason) => reason.fmt(f),
            Self::Custom { message, .. } => f.write_str(message),
        }
    }
}
