//! Chain of credential providers: the candidates of all of them, in order.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;

use super::{Credential, CredentialError, CredentialProvider};
use crate::{error::chain, reference::RepositoryName};

/// Providers in the order in which their credentials are tried. They run concurrently; a failure of one does not affect
/// the others; duplicates are removed.
///
/// ```
/// use std::sync::Arc;
/// use kuik_core::credentials::{Credential, DockerConfig, Providers};
///
/// let providers = Providers::default()
///     .and(Arc::new(DockerConfig::default()))
///     .and(Arc::new(vec![Credential::basic("user", "password")]));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Providers(Vec<Arc<dyn CredentialProvider>>);

impl Providers {
    /// Appends a provider.
    #[must_use]
    pub fn and(mut self, provider: Arc<dyn CredentialProvider>) -> Self {
        self.0.push(provider);
        self
    }
}

#[async_trait]
impl CredentialProvider for Providers {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        let asked = join_all(self.0.iter().map(|provider| provider.candidates(repository))).await;
        let mut candidates: Vec<Credential> = Vec::new();
        let mut failures: Vec<CredentialError> = Vec::new();
        for answer in asked {
            match answer {
                Ok(found) => {
                    for credential in found {
                        if !candidates.contains(&credential) {
                            candidates.push(credential);
                        }
                    }
                }
                Err(error) => failures.push(error),
            }
        }
        match (candidates.is_empty(), failures.len()) {
            (_, 0) => Ok(candidates),
            (true, 1) => Err(failures.remove(0)),
            (true, _) => Err(CredentialError::new(chain_all(&failures), None)),
            // The available candidates may suffice; the failures of the others are only logged.
            (false, _) => {
                log(repository, &failures);
                Ok(candidates)
            }
        }
    }
}

#[cfg(feature = "client")]
fn log(repository: &RepositoryName, failures: &[CredentialError]) {
    tracing::warn!(%repository, error = %chain_all(failures), "failed to read some credentials");
}

/// Without the client feature there is no log.
#[cfg(not(feature = "client"))]
fn log(_: &RepositoryName, _: &[CredentialError]) {}

/// Returns all failures on one line, each with its causes.
fn chain_all(failures: &[CredentialError]) -> String {
    failures.iter().map(|failure| chain(failure)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[derive(Debug)]
    struct Broken(&'static str);

    #[async_trait]
    impl CredentialProvider for Broken {
        async fn candidates(&self, _: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
            Err(CredentialError::new(self.0, Some("the disk is gone".into())))
        }
    }

    fn candidates(providers: &Providers) -> Result<Vec<Credential>, CredentialError> {
        let repository = RepositoryName::new("registry.example", "app").unwrap();
        providers.candidates(&repository).now_or_never().unwrap()
    }

    #[test]
    fn candidates_are_ordered_and_unique() {
        let [a, b, c] = ["a", "b", "c"].map(|user| Credential::basic(user, "password"));
        let providers = Providers::default()
            .and(Arc::new(vec![a.clone(), b.clone()]))
            .and(Arc::new(Broken("one")))
            .and(Arc::new(vec![b.clone(), c.clone()]));
        assert_eq!(candidates(&providers).unwrap(), [a, b, c]);
        assert!(candidates(&Providers::default()).unwrap().is_empty());
    }

    #[test]
    fn failures_are_returned_if_no_candidate_is_found() {
        let one = Providers::default().and(Arc::new(Broken("one"))).and(Arc::new(Vec::new()));
        assert_eq!(candidates(&one).unwrap_err().to_string(), "one");
        let two = one.and(Arc::new(Broken("two")));
        let said = candidates(&two).unwrap_err().to_string();
        assert_eq!(said, "one: the disk is gone; two: the disk is gone");
    }
}
