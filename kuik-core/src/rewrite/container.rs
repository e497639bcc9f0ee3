//! Pod and container context of an image, for policies.

use std::{fmt, str::FromStr};

use super::Placement;

/// The container of an image. Covers everything in a pod spec with an image and a pull policy, image volumes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ContainerContext<'a> {
    /// Name of the container or volume.
    pub name: &'a str,
    /// Pull policy, if the pod sets one.
    pub pull_policy: Option<PullPolicy>,
    /// The pod of the container.
    pub pod: PodContext<'a>,
}

/// The pod of an image: borrowed, and cheap to copy.
///
/// ```
/// use kuik_core::rewrite::PodContext;
///
/// let pod = PodContext::new("shop").with_labels(&[("team", "checkout")]);
/// assert_eq!(pod.label("team"), Some("checkout"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PodContext<'a> {
    /// Namespace; empty if unknown, as for a manifest that does not set one.
    pub namespace: &'a str,
    /// `spec.serviceAccountName`; empty if not set.
    pub service_account: &'a str,
    /// Labels.
    pub labels: &'a [(&'a str, &'a str)],
    /// Annotations. Empty when the controllers ask about pods that are older than the webhook: they do not hold the
    /// annotations of all pods in memory.
    pub annotations: &'a [(&'a str, &'a str)],
    /// Requirements of the pod on its node.
    pub placement: Placement,
}

/// The image pull policy of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PullPolicy {
    /// The node checks the registry at every container start.
    Always,
    /// The node pulls only if the image is absent.
    IfNotPresent,
    /// The node never pulls, even if the image is absent.
    Never,
}

/// The text is not a Kubernetes pull policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pull policy: use Always, IfNotPresent or Never")]
pub struct UnknownPullPolicy(String);

impl<'a> ContainerContext<'a> {
    /// A container without a pull policy, in an unknown pod.
    #[must_use]
    pub fn new(name: &'a str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Sets the pull policy, if the container has one.
    #[must_use]
    pub fn with_pull_policy(self, pull_policy: Option<PullPolicy>) -> Self {
        Self { pull_policy, ..self }
    }

    /// Sets the pod.
    #[must_use]
    pub fn with_pod(self, pod: PodContext<'a>) -> Self {
        Self { pod, ..self }
    }
}

impl<'a> PodContext<'a> {
    /// A pod without labels, annotations or service account.
    #[must_use]
    pub fn new(namespace: &'a str) -> Self {
        Self { namespace, ..Self::default() }
    }

    /// Sets the service account.
    #[must_use]
    pub fn with_service_account(self, service_account: &'a str) -> Self {
        Self { service_account, ..self }
    }

    /// Sets the labels.
    #[must_use]
    pub fn with_labels(self, labels: &'a [(&'a str, &'a str)]) -> Self {
        Self { labels, ..self }
    }

    /// Sets the annotations.
    #[must_use]
    pub fn with_annotations(self, annotations: &'a [(&'a str, &'a str)]) -> Self {
        Self { annotations, ..self }
    }

    /// Sets the placement.
    #[must_use]
    pub fn with_placement(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// Returns the value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&'a str> {
        value(self.labels, key)
    }

    /// Returns the value of an annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        value(self.annotations, key)
    }
}

fn value<'a>(pairs: &[(&'a str, &'a str)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
}

impl PullPolicy {
    /// Returns the Kubernetes name of the policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl FromStr for PullPolicy {
    type Err = UnknownPullPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Always, Self::IfNotPresent, Self::Never]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| UnknownPullPolicy(text.to_owned()))
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
