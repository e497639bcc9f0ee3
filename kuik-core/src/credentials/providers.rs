//! Several providers as one: all that they have, in their order.

use std::{error::Error as _, sync::Arc};

use async_trait::async_trait;
use futures::future::join_all;

use super::{Credential, CredentialError, CredentialProvider};
use crate::reference::RepositoryName;

/// Providers in the order in which their credentials are tried. They are asked at the same time, and one that fails
/// leaves those of the others; each credential is named once.
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
    /// The same with one more, which comes last.
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
            // What there is may do. Why the rest is missing, only a log can say.
            (false, _) => {
                log(repository, &failures);
                Ok(candidates)
            }
        }
    }
}

#[cfg(feature = "registry")]
fn log(repository: &RepositoryName, failures: &[CredentialError]) {
    tracing::warn!(%repository, error = %chain_all(failures), "some credentials cannot be read");
}

/// Without the client that uses credentials there is no log either.
#[cfg(not(feature = "registry"))]
fn log(_: &RepositoryName, _: &[CredentialError]) {}

/// All failures on one line, each with its causes.
fn chain_all(failures: &[CredentialError]) -> String {
    let chain = |failure: &CredentialError| {
        let causes = std::iter::successors(failure.source(), |&cause| cause.source());
        causes.fold(failure.to_string(), |chain, cause| format!("{chain}: {cause}"))
    };
    failures.iter().map(chain).collect::<Vec<_>>().join("; ")
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
    fn all_in_their_order_each_once() {
        let [a, b, c] = ["a", "b", "c"].map(|user| Credential::basic(user, "password"));
        let providers = Providers::default()
            .and(Arc::new(vec![a.clone(), b.clone()]))
            .and(Arc::new(Broken("one")))
            .and(Arc::new(vec![b.clone(), c.clone()]));
        assert_eq!(candidates(&providers).unwrap(), [a, b, c]);
        assert!(candidates(&Providers::default()).unwrap().is_empty());
    }

    #[test]
    fn where_there_is_nothing_the_reason_is_told() {
        let one = Providers::default().and(Arc::new(Broken("one"))).and(Arc::new(Vec::new()));
        assert_eq!(candidates(&one).unwrap_err().to_string(), "one");
        let two = one.and(Arc::new(Broken("two")));
        let said = candidates(&two).unwrap_err().to_string();
        assert_eq!(said, "one: the disk is gone; two: the disk is gone");
    }
}
