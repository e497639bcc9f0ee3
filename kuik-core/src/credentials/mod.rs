//! Registry credentials and their providers.
//!
//! A [`CredentialProvider`] returns candidates in the order in which they are tried; the registry client tries them and
//! caches the accepted one. It requests candidates only when a registry refuses, so a cache hit runs no program and
//! contacts no service. Invariant: no secret is ever printed, neither by `Debug` nor in an error.
//!
//! | provider | source of the credentials | feature |
//! |---|---|---|
//! | [`DockerConfig`] | the `auths` of a docker config | |
//! | [`CredentialFile`] | a file that may change: a docker config or a token | |
//! | `DockerHelpers` | the programs that its `credsStore` and `credHelpers` name | `credential-plugins` |
//! | `KubeletPlugins` | the kubelet's credential provider plugins | `credential-plugins` |
//! | `EcrIdentity`, `GoogleIdentity`, `AzureIdentity` | the cloud identity of the machine or pod | `ecr`, `google`,
//! `azure` |

#[cfg(any(feature = "ecr", feature = "google", feature = "azure"))]
mod ambient;
mod credential_file;
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
pub use credential_file::{CredentialFile, InvalidCredentialFile};
pub use docker_config::{DockerConfig, InvalidDockerConfig};
#[cfg(feature = "credential-plugins")]
pub use docker_helpers::DockerHelpers;
#[cfg(feature = "credential-plugins")]
pub use kubelet::{InvalidPluginConfig, KubeletPlugins, PluginConfig};
pub use providers::Providers;

use crate::reference::RepositoryName;

/// Returns the credentials that a repository may accept.
#[async_trait]
pub trait CredentialProvider: fmt::Debug + Send + Sync + 'static {
    /// Returns the credentials for `repository` in the order in which they are tried. Anonymous access needs no entry:
    /// it is tried if none of them is accepted.
    ///
    /// # Errors
    /// Fails if they cannot be read now. Callers then continue without: public images need none.
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError>;
}

/// A credential for a registry.
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
    /// A bearer token that is sent to the registry unchanged (`registrytoken` in a docker config).
    RegistryToken(Secret),
}

impl Credential {
    /// Creates a user name and a password.
    pub fn basic(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::Basic { username: username.into(), password: password.into() }
    }
}

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Returns the secret, for the header or form that contains it.
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

/// Reading credentials failed.
#[derive(Debug, Clone)]
pub struct CredentialError {
    what: String,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl CredentialError {
    /// Creates an error; `what` describes what could not be read, `cause` is the underlying error, if any.
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

/// No credentials: every request is anonymous.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl CredentialProvider for Anonymous {
    async fn candidates(&self, _: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        Ok(Vec::new())
    }
}

/// The same credentials for every repository, in this order: for tools that use one registry.
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
