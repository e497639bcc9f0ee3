//! Pull secrets that pods use for a repository, across all namespaces.

use kube_runtime::reflector::{ObjectRef, Store};

use crate::{
    controller::pods::{PodIndex, SecretSource, service_accounts::SlimAccount},
    crd::PullSecret,
    reference::RepositoryName,
};

/// Maximum number of secrets per repository: each of them may be tried.
const MOST: usize = 100;

/// Returns the secrets that pods name for the repository, then those of their ServiceAccounts, each once, in an order
/// independent of the order of pods. `None` if no pod uses the repository.
pub(super) fn of_pods(
    index: &PodIndex,
    accounts: &Store<SlimAccount>,
    repository: &RepositoryName,
) -> Option<Vec<PullSecret>> {
    if !index.uses(repository) {
        return None;
    }
    let mut secrets: Vec<PullSecret> = Vec::new();
    let mut add = |namespace: &str, name: &str| {
        let secret = PullSecret { namespace: namespace.to_owned(), name: name.to_owned() };
        if secrets.len() < MOST && !secrets.contains(&secret) {
            secrets.push(secret);
        }
    };
    for source in index.secrets(repository) {
        match source {
            SecretSource::Secret { namespace, name } => add(namespace, name),
            SecretSource::ServiceAccount { namespace, name } => {
                let account = accounts.get(&ObjectRef::new(name).within(namespace));
                for name in account.iter().flat_map(|account| &account.pull_secrets) {
                    add(namespace, name);
                }
            }
        }
    }
    Some(secrets)
}
