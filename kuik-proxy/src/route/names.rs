//! How a path names a repository: by where it comes from, or as one of this registry's own.

use std::error::Error;

use kuik_core::reference::{PortForms, RepositoryName, decode_path};

use super::RouteError;

/// How the repositories in paths are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Names {
    /// By the registry that they come from and their path there: a cache of other registries.
    Upstream(PortForms),
    /// By their path alone: a registry of its own, whose `team/app` comes from nowhere else.
    Local,
}

impl Default for Names {
    fn default() -> Self {
        Self::Upstream(PortForms::default())
    }
}

impl From<PortForms> for Names {
    fn from(ports: PortForms) -> Self {
        Self::Upstream(ports)
    }
}

impl Names {
    /// The repository called `name` in a path, or in the `ns` parameter's registry where there is one.
    ///
    /// No valid name needs percent-encoding, and what is encoded is refused with the rest: `%2e%2e` is not a name.
    pub(crate) fn repository(
        self,
        name: &str,
        namespace: Option<&str>,
    ) -> Result<RepositoryName, RouteError> {
        let named = match (self, namespace) {
            // A client that takes this registry for a mirror says whose mirror; the name is still ours to give.
            (Self::Local, _) => RepositoryName::local(name),
            (Self::Upstream(_), Some(registry)) => RepositoryName::new(registry, name),
            (Self::Upstream(ports), None) => decode_path(name, ports),
        };
        named.map_err(|error| {
            RouteError::Name(error.source().map_or_else(|| error.to_string(), ToString::to_string))
        })
    }
}
