//! Why an image is kept as it is.

use std::{fmt, sync::Arc};

use crate::reference::{CannotEncode, ReferenceError};

/// Why an image is kept as it is. `Display` tells people, [`KeepReason::as_label`] tells metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepReason {
    /// Its pod carries the label that opts out of caching.
    PodOptedOut,
    /// The container's pull policy is `Never`: its node pulls nothing.
    PullPolicyNever,
    /// The container's pull policy is `Always`: its user wants what the registry has now.
    PullPolicyAlways,
    /// The container states no pull policy and the tag is `latest`, or none: Kubernetes makes that `Always`.
    PullPolicyAlwaysByDefault,
    /// An ignore pattern matches.
    Ignored {
        /// The pattern.
        pattern: Arc<str>,
    },
    /// There are accept patterns, and none matches.
    NotAccepted,
    /// It is not a reference.
    InvalidReference(ReferenceError),
    /// It cannot be written as a path of the proxy.
    CannotEncode(CannotEncode),
}

impl KeepReason {
    /// A stable name for metrics and machines, of lower-case letters and `_`.
    #[must_use]
    pub fn as_label(&self) -> &'static str {
        match self {
            Self::PodOptedOut => "pod_opted_out",
            Self::PullPolicyNever => "pull_policy_never",
            Self::PullPolicyAlways => "pull_policy_always",
            Self::PullPolicyAlwaysByDefault => "pull_policy_always_by_default",
            Self::Ignored { .. } => "ignored",
            Self::NotAccepted => "not_accepted",
            Self::InvalidReference(_) => "invalid_reference",
            Self::CannotEncode(_) => "cannot_encode",
        }
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodOptedOut => f.write_str("its pod opts out by label"),
            Self::PullPolicyNever => f.write_str("its pull policy is Never"),
            Self::PullPolicyAlways => f.write_str("its pull policy is Always"),
            Self::PullPolicyAlwaysByDefault => {
                f.write_str("it states no pull policy, which is Always for the tag latest")
            }
            Self::Ignored { pattern } => write!(f, "the ignore pattern {pattern:?} matches"),
            Self::NotAccepted => f.write_str("no accept pattern matches"),
            Self::InvalidReference(error) => write!(f, "it is not an image reference: {error}"),
            Self::CannotEncode(CannotEncode::NotAReference(error)) => {
                write!(f, "what follows the proxy's prefix is not an image reference: {error}")
            }
            Self::CannotEncode(reason) => reason.fmt(f),
        }
    }
}
