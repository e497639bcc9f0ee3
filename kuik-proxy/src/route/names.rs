//! Repository naming in paths: by upstream registry, or local.

use std::error::Error;

use kuik_core::reference::{PortForms, RepositoryName, decode_path};

use super::RouteError;

/// How paths name repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Names {
    /// By upstream registry and path: a cache of other registries.
    Upstream(PortForms),
    /// By path alone: a registry with its own content, whose `team/app` has no upstream.
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
    /// Returns the repository called `name` in a path, or in the `ns` parameter's registry if there is one.
    ///
    /// No valid name needs percent-encoding, and encoded names are refused: `%2e%2e` is not a name.
    pub(crate) fn repository(
        self,
        name: &str,
        namespace: Option<&str>,
    ) -> Result<RepositoryName, RouteError> {
        let named = match (self, namespace) {
            // A client that uses this registry as a mirror sends the mirrored registry; names are local all the same.
            (Self::Local, _) => RepositoryName::local(name),
            (Self::Upstream(_), Some(registry)) => RepositoryName::new(registry, name),
            (Self::Upstream(ports), None) => decode_path(name, ports),
        };
        named.map_err(|error| {
            RouteError::Name(error.source().map_or_else(|| error.to_string(), ToString::to_string))
        })
    }
}
