//! Credentials for registries: what they are, and where they come from.
//!
//! A [`CredentialProvider`] names candidates in the order in which they are to be tried; the registry client tries
//! them and remembers which one worked. It asks for candidates only when a registry refuses, so nothing is run and
//! nobody is contacted for a hit. Invariant: no secret is ever printed, neither by `Debug` nor in an error.
//!
//! | provider | where credentials come from | feature |
//! |---|---|---|
//! | [`DockerConfig`] | the `auths` of a docker config | |
//! | `DockerHelpers` | the programs that its `credsStore` and `credHelpers` name | `credential-plugins` |
//! | `KubeletPlugins` | the kubelet's credential provider plugins | `credential-plugins` |
//! | `EcrIdentity`, `GoogleIdentity`, `AzureIdentity` | what the machine or the pod is in its cloud | `ecr`, `google`, `azure` |

#[cfg(any(feature = "ecr", feature = "google", feature = "azure"))]
mod ambient;
mod docker_config;
#[cfg(feature = "credential-plugins")]
mod docker_helpers;
#[cfg(any(feature = "credential-plugins", feature = "ecr", feature = "google", feature = "azure"))]
mod expiring;
#[cfg(feature = "credential-plugins")]
mod kubelet;
#[cfg(feature = "credential-plugins")]
mod program;
mod providers;

use std::{error::Error, fmt, sync::Arc};

use async_trait::async_trait;

#[cfg(feature = "azure")]
pub use ambient::AzureIdentity;
#[cfg(feature = "ecr")]
pub use ambient::EcrIdentity;
#[cfg(feature = "google")]
pub use ambient::GoogleIdentity;
pub use docker_config::{DockerConfig, InvalidDockerConfig};
#[cfg(feature = "credential-plugins")]
pub use docker_helpers::DockerHelpers;
#[cfg(feature = "credential-plugins")]
pub use kubelet::{InvalidPluginConfig, KubeletPlugins, PluginConfig};
pub use providers::Providers;

use crate::reference::RepositoryName;

/// Names the credentials that may open a repository.
#[async_trait]
pub trait CredentialProvider: fmt::Debug + Send + Sync + 'static {
    /// The credentials for `repository`, in the order in which they are to be tried. Anonymous access needs no
    /// entry: it is what remains when none of them is accepted.
    ///
    /// # Errors
    /// Where they cannot be read now. Callers then go on without: public images need none.
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError>;
}

/// What opens a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Credential {
    /// A user name and a password, sent as `Basic` to the registry or to its token endpoint.
    Basic {
        /// The user.
        username: String,
        /// The password, or an access token that is used as one.
        password: Secret,
    },
    /// An OAuth 2 refresh token (`identitytoken` in a docker config), exchanged at the token endpoint.
    IdentityToken(Secret),
    /// A bearer token that is sent to the registry as it is (`registrytoken` in a docker config).
    RegistryToken(Secret),
}

impl Credential {
    /// A user name and a password.
    pub fn basic(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::Basic { username: username.into(), password: password.into() }
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The secret itself, for the header or the form that carries it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The credentials cannot be read now.
#[derive(Debug, Clone)]
pub struct CredentialError {
    what: String,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl CredentialError {
    /// An error that says what could not be read, and the error that caused it where there is one.
    pub fn new(what: impl Into<String>, cause: Option<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), cause: cause.map(Arc::from) }
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for CredentialError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// No credentials: every registry is asked anonymously.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl CredentialProvider for Anonymous {
    async fn candidates(&self, _: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        Ok(Vec::new())
    }
}

/// The same credentials, in this order, for every repository: for tools that talk to one registry.
#[async_trait]
impl CredentialProvider for Vec<Credential> {
    async fn candidates(&self, _: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        Ok(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_no_secret() {
        for credential in [
            Credential::basic("user", "hunter2"),
            Credential::IdentityToken("hunter2".into()),
            Credential::RegistryToken("hunter2".into()),
        ] {
            assert!(!format!("{credential:?}").contains("hunter2"));
        }
    }
}
