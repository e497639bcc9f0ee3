//! The credentials that a cluster's pull secrets hold, for whoever fetches images: the cache, the proxies, controllers.
//!
//! Repositories name the secrets, and a watch keeps what they name in memory; the secrets themselves are read by name,
//! and again from time to time. So the right to `get` secrets is enough: nobody has to be able to list them. Invariant:
//! to name candidates asks nothing of the API server; where a secret has only just been named, they wait for it a
//! moment. An image of a repository that no object names needs no secret, and is fetched without any.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use kube_client::{Api, Client};
use kube_runtime::reflector::Store;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    ApiError, ApiErrorKind, Informer,
    objects::{self, Place},
};
use crate::{
    crd::{PullSecret, Repository},
    credentials::{Credential, CredentialError, CredentialProvider, DockerConfig},
    reference::RepositoryName,
};

/// How long a secret is good for without being read again.
const REFRESH: Duration = Duration::from_secs(30);

/// How long candidates wait for a secret that has not been read yet.
const FIRST_READ: Duration = Duration::from_secs(3);

/// How many secrets are read at a time.
const READS: usize = 4;

/// How large a secret may be: as large as Kubernetes lets it be.
const MOST_BYTES: usize = 1 << 20;

/// What the secrets are called that hold a docker config, the one of today and the one of long ago.
const KEYS: [&str; 2] = [".dockerconfigjson", ".dockercfg"];

/// Names the credentials of pull secrets. Cheap to clone.
#[derive(Clone)]
pub struct PullSecrets(Arc<Shared>);

struct Shared {
    client: Client,
    repositories: Informer<Repository>,
    read: Mutex<BTreeMap<PullSecret, Known>>,
    /// Counts what was read, so that who waits can see it.
    reads: watch::Sender<u64>,
}

/// What is known of a secret.
#[derive(Debug, Clone)]
enum Known {
    Holds(DockerConfig),
    /// There is no such secret, or it holds no docker config: so it was said once.
    Nothing(String),
}

impl PullSecrets {
    /// The secrets that `repositories` name, read through `client`, and the work of reading them: a future that is
    /// polled for as long as images are fetched, and never ends.
    pub fn new(
        client: Client,
        repositories: Informer<Repository>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (reads, _) = watch::channel(0);
        let secrets = Self(Arc::new(Shared { client, repositories, read: Mutex::default(), reads }));
        let work = secrets.clone().keep();
        (secrets, work)
    }

    /// Reads the secrets when they are named, and all of them again from time to time.
    async fn keep(self) {
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
                // What was known of it stays.
                Err(error) => {
                    let PullSecret { namespace, name } = &secret;
                    tracing::warn!(%namespace, %name, error = &error as &dyn std::error::Error, "a pull secret is not read");
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
                || Known::Nothing("there is no such secret".to_owned()),
                |found| parsed(secret, found),
            )),
            Err(error) => {
                let error = ApiError::new(format!("read the Secret {namespace}/{name}"), error);
                // Whoever may not read secrets does without them, and says so once.
                match error.kind() {
                    ApiErrorKind::Forbidden => Ok(Known::Nothing("it may not be read".to_owned())),
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
            tracing::warn!(%namespace, %name, %why, "a pull secret opens nothing");
        }
        self.0.read.lock().unwrap_or_else(PoisonError::into_inner).insert(secret, known);
        self.0.reads.send_modify(|reads| *reads = reads.wrapping_add(1));
    }

    fn forget_all_but(&self, named: &BTreeSet<PullSecret>) {
        self.0.read.lock().unwrap_or_else(PoisonError::into_inner).retain(|secret, _| named.contains(secret));
    }

    fn get(&self, secret: &PullSecret) -> Option<Known> {
        self.0.read.lock().unwrap_or_else(PoisonError::into_inner).get(secret).cloned()
    }

    /// What is known of all of them; `None` where one has not been read yet.
    fn all(&self, secrets: &[PullSecret]) -> Option<Vec<Known>> {
        secrets.iter().map(|secret| self.get(secret)).collect()
    }
}

/// The secrets that open a repository, in the order in which they are tried.
fn secrets_of(store: &Store<Repository>, repository: &RepositoryName) -> Vec<PullSecret> {
    match objects::repository(store, repository) {
        Place::Here(object) => object.pull_secrets().collect(),
        Place::Free(_) => Vec::new(),
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
            // Those that have been read may do.
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
        return Known::Nothing(format!("it has no {:?}", KEYS[0]));
    };
    if content.0.len() > MOST_BYTES {
        return Known::Nothing(format!("its {key:?} is larger than {MOST_BYTES} bytes"));
    }
    // The older form has what is under "auths" in the newer one, alone.
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
        let known = self.0.read.lock().map_or(0, |known| known.len());
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
    fn both_forms_of_a_docker_config_are_read_and_garbage_is_told_without_its_content() {
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
