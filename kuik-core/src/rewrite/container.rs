//! What a policy may know of the container that an image is written in.

use std::{fmt, str::FromStr};

/// A container of a pod: whatever has an image and a pull policy, image volumes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ContainerContext<'a> {
    /// Its name in the pod.
    pub name: &'a str,
    /// Its pull policy, where the pod states one.
    pub pull_policy: Option<PullPolicy>,
}

/// When a node asks the registry for an image that it has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PullPolicy {
    /// At every start of a container.
    Always,
    /// Not if it has it.
    IfNotPresent,
    /// Never, not even if it has it not.
    Never,
}

/// A text that is not a pull policy of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pull policy: they are Always, IfNotPresent and Never")]
pub struct UnknownPullPolicy(String);

impl<'a> ContainerContext<'a> {
    /// A container that states no pull policy.
    #[must_use]
    pub fn new(name: &'a str) -> Self {
        Self { name, pull_policy: None }
    }

    /// The same container with the pull policy that it states, if it states one.
    #[must_use]
    pub fn with_pull_policy(self, pull_policy: Option<PullPolicy>) -> Self {
        Self { pull_policy, ..self }
    }
}

impl PullPolicy {
    /// The policy's name in Kubernetes.
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
