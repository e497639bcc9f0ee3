//! Credential provider for pull secrets, used by the cache, the proxies and the controllers.
//!
//! Repositories name the secrets. Their names are kept in memory by a watch; the secrets are read by name and refreshed
//! periodically, so that the permission to `get` secrets is enough and `list` is not needed. Invariant: returning
//! candidates sends no request to the API server; for a newly named secret they wait a moment. Images of a repository
//! without a Repository object are pulled anonymously.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use kube_client::{Api, Client};
use kube_runtime::reflector::Store;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::controller::{
    ApiError, ApiErrorKind, Informer,
    runtime::objects::{self, Lookup},
};
use crate::{
    crd::{PullSecret, Repository},
    credentials::{Credential, CredentialError, CredentialProvider, DockerConfig},
    reference::RepositoryName,
};

/// Refresh interval of secrets.
const REFRESH: Duration = Duration::from_secs(30);

/// Maximum wait for a secret that has not been read yet.
const FIRST_READ: Duration = Duration::from_secs(3);

/// Number of concurrent reads.
const READS: usize = 4;

/// Maximum size of a secret: the limit of Kubernetes.
const MOST_BYTES: usize = 1 << 20;

/// Keys that hold a Docker config: the current one and the legacy one.
const KEYS: [&str; 2] = [".dockerconfigjson", ".dockercfg"];

/// Provides the credentials of pull secrets. Cheap to clone.
#[derive(Clone)]
pub struct PullSecrets(Arc<Shared>);

struct Shared {
    client: Client,
    repositories: Informer<Repository>,
    read: Mutex<BTreeMap<PullSecret, Known>>,
    /// Incremented after each read, to wake waiters.
    reads: watch::Sender<u64>,
}

/// A secret as last read.
#[derive(Debug, Clone)]
enum Known {
    Holds(DockerConfig),
    /// It does not exist or holds no Docker config; logged once.
    Nothing(String),
}

impl PullSecrets {
    /// Returns a provider for the secrets that `repositories` name, and the future that reads them through `client`.
    /// The future never ends and must be polled as long as images are pulled.
    pub fn new(
        client: Client,
        repositories: Informer<Repository>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (reads, _) = watch::channel(0);
        let secrets = Self(Arc::new(Shared { client, repositories, read: Mutex::default(), reads }));
        let work = secrets.clone().refresh();
        (secrets, work)
    }

    /// Reads secrets when they are first named, and refreshes all of them periodically.
    async fn refresh(self) {
        let mut changes = self.0.repositories.changes();
        loop {
            let named = self.named();
            self.forget_all_but(&named);
            self.read(named.iter().cloned().collect()).await;
            let again = sleep(REFRESH);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    Some(_) = changes.next() => {
                        let new: Vec<_> = self.named().into_iter().filter(|secret| self.get(secret).is_none()).collect();
                        self.read(new).await;
                    }
                }
            }
        }
    }

    fn named(&self) -> BTreeSet<PullSecret> {
        let repositories = self.0.repositories.store().state();
        repositories.iter().flat_map(|repository| repository.pull_secrets()).collect()
    }

    async fn read(&self, secrets: Vec<PullSecret>) {
        let read = stream::iter(secrets).for_each_concurrent(READS, |secret| async move {
            match self.read_one(&secret).await {
                Ok(known) => self.remember(secret, known),
                // Keeps the previous content.
                Err(error) => {
                    let PullSecret { namespace, name } = &secret;
                    tracing::warn!(%namespace, %name, error = &error as &dyn std::error::Error, "failed to read pull secret, retrying");
                }
            }
        });
        read.await;
    }

    async fn read_one(&self, secret: &PullSecret) -> Result<Known, ApiError> {
        let PullSecret { namespace, name } = secret;
        let api: Api<ApiSecret> = Api::namespaced(self.0.client.clone(), namespace);
        match api.get_opt(name).await {
            Ok(found) => Ok(found.map_or_else(
                || Known::Nothing("secret not found".to_owned()),
                |found| parsed(secret, found),
            )),
            Err(error) => {
                let error = ApiError::new(format!("read the Secret {namespace}/{name}"), error);
                // Without permission to read secrets, pulls proceed without them; logged once.
                match error.kind() {
                    ApiErrorKind::Forbidden => Ok(Known::Nothing("access forbidden".to_owned())),
                    _ => Err(error),
                }
            }
        }
    }

    fn remember(&self, secret: PullSecret, known: Known) {
        let before = self.get(&secret);
        if let Known::Nothing(why) = &known
            && !matches!(&before, Some(Known::Nothing(before)) if before == why)
        {
            let PullSecret { namespace, name } = &secret;
            tracing::warn!(%namespace, %name, %why, "pull secret has no usable credentials");
        }
        self.0.read.lock().insert(secret, known);
        self.0.reads.send_modify(|reads| *reads = reads.wrapping_add(1));
    }

    fn forget_all_but(&self, named: &BTreeSet<PullSecret>) {
        self.0.read.lock().retain(|secret, _| named.contains(secret));
    }

    fn get(&self, secret: &PullSecret) -> Option<Known> {
        self.0.read.lock().get(secret).cloned()
    }

    /// Returns all of them; `None` if one has not been read yet.
    fn all(&self, secrets: &[PullSecret]) -> Option<Vec<Known>> {
        secrets.iter().map(|secret| self.get(secret)).collect()
    }
}

/// Returns the pull secrets of a repository, in order of use.
fn secrets_of(store: &Store<Repository>, repository: &RepositoryName) -> Vec<PullSecret> {
    match objects::repository(store, repository) {
        Lookup::Existing(object) => object.pull_secrets().collect(),
        Lookup::Vacant(_) => Vec::new(),
    }
}

#[async_trait]
impl CredentialProvider for PullSecrets {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        let secrets = secrets_of(&self.0.repositories.store(), repository);
        let mut reads = self.0.reads.subscribe();
        let all = async {
            loop {
                if let Some(all) = self.all(&secrets) {
                    return all;
                }
                if reads.changed().await.is_err() {
                    return Vec::new();
                }
            }
        };
        let known = match timeout(FIRST_READ, all).await {
            Ok(all) => all,
            // Continue with those already read.
            Err(_) => secrets.iter().filter_map(|secret| self.get(secret)).collect(),
        };
        let configs = known.into_iter().filter_map(|known| match known {
            Known::Holds(config) => Some(config),
            Known::Nothing(_) => None,
        });
        Ok(configs.flat_map(|config| config.matching(repository).cloned().collect::<Vec<_>>()).collect())
    }
}

fn parsed(secret: &PullSecret, found: ApiSecret) -> Known {
    let PullSecret { namespace, name } = secret;
    let data = found.data.unwrap_or_default();
    let Some((key, content)) = KEYS.iter().find_map(|key| Some((*key, data.get(*key)?))) else {
        return Known::Nothing(format!("no key {:?}", KEYS[0]));
    };
    if content.0.len() > MOST_BYTES {
        return Known::Nothing(format!("key {key:?} is larger than {MOST_BYTES} bytes"));
    }
    // The legacy form is the content of "auths" of the current one.
    let whole = if key == KEYS[1] {
        [br#"{"auths":"#, content.0.as_slice(), b"}"].concat()
    } else {
        content.0.clone()
    };
    match DockerConfig::parse(&format!("Secret {namespace}/{name}, {key}"), &whole) {
        Ok(config) => Known::Holds(config),
        Err(error) => Known::Nothing(error.to_string()),
    }
}

impl fmt::Debug for PullSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.read.lock().len();
        f.debug_struct("PullSecrets").field("known", &known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(key: &str, content: &str) -> ApiSecret {
        let data = [(key.to_owned(), ByteString(content.as_bytes().to_vec()))];
        ApiSecret { data: Some(data.into()), ..ApiSecret::default() }
    }

    #[test]
    fn both_docker_config_forms_are_parsed_and_errors_do_not_leak_content() {
        let name = PullSecret { namespace: "shop".to_owned(), name: "regcred".to_owned() };
        let entry = r#"{"registry.example": {"username": "u", "password": "hunter2"}}"#;
        for (key, content, holds) in [
            (".dockerconfigjson", format!(r#"{{"auths": {entry}}}"#), true),
            (".dockercfg", entry.to_owned(), true),
            (".dockerconfigjson", "hunter2".to_owned(), false),
            ("token", "hunter2".to_owned(), false),
        ] {
            match parsed(&name, secret(key, &content)) {
                Known::Holds(config) => assert!(holds && config.len() == 1, "{key}"),
                Known::Nothing(why) => assert!(!holds && !why.contains("hunter2"), "{key}: {why}"),
            }
        }
    }
}
