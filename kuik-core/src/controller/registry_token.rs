//! Write token of the cache registry: generated once, stored in a Secret that the registry mounts.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    ByteString, api::core::v1::Secret as ApiSecret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_client::{Api, Client, api::PostParams};
use tokio::time::Instant;

use super::{ApiError, ApiErrorKind, FIELD_MANAGER};
use crate::{
    credentials::{Credential, CredentialError, CredentialProvider, Secret},
    reference::RepositoryName,
};

/// Key of the token in the Secret.
const KEY: &str = "token";

/// The token could be neither read nor created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoToken {
    /// The API server rejected the request or did not respond.
    #[error("no write token for the cache registry")]
    Api(#[from] ApiError),
    /// The Secret exists but contains no token.
    #[error("secret {0} has no key {KEY:?}: delete it to have it recreated")]
    Empty(String),
}

/// How long a token is used before a refusal makes it be read again.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The token of the cache registry as credentials, read again from its Secret when the registry refuses it: rotating the
/// token needs no restart. Its `Debug` output contains no secret.
#[derive(Clone)]
pub struct RegistryToken {
    client: Client,
    namespace: String,
    name: String,
    fresh: Secret,
    last: Arc<tokio::sync::Mutex<Option<(Instant, Secret)>>>,
}

impl RegistryToken {
    /// Returns the token in the Secret `name` of `namespace`; a missing Secret is created with the random token `fresh`.
    #[must_use]
    pub fn new(client: Client, namespace: impl Into<String>, name: impl Into<String>, fresh: Secret) -> Self {
        Self { client, namespace: namespace.into(), name: name.into(), fresh, last: Arc::default() }
    }

    /// Reads the token; creates the Secret if it is missing. Concurrent calls share one request.
    ///
    /// # Errors
    /// Returns an error if the token can be neither read nor created.
    pub async fn read(&self) -> Result<Secret, NoToken> {
        let mut last = self.last.lock().await;
        if let Some((read, token)) = &*last
            && read.elapsed() < READ_AGAIN_AFTER
        {
            return Ok(token.clone());
        }
        let token = registry_token(&self.client, &self.namespace, &self.name, &self.fresh).await?;
        *last = Some((Instant::now(), token.clone()));
        Ok(token)
    }
}

impl fmt::Debug for RegistryToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryToken")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for RegistryToken {
    async fn candidates(&self, _: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        match self.read().await {
            // The registry ignores the user name.
            Ok(token) => Ok(vec![Credential::basic("kuik", token)]),
            Err(error) => {
                let what = format!("cannot read the token in the Secret {}/{}", self.namespace, self.name);
                Err(CredentialError::new(what, Some(error.into())))
            }
        }
    }
}

/// Returns the token in the Secret `name` of `namespace`. If there is no such Secret, creates it with the random token
/// `fresh`. If several replicas start together, one creates it and all use that token.
///
/// # Errors
/// Returns an error if the token can be neither read nor created.
pub async fn registry_token(
    client: &Client,
    namespace: &str,
    name: &str,
    fresh: &Secret,
) -> Result<Secret, NoToken> {
    let api: Api<ApiSecret> = Api::namespaced(client.clone(), namespace);
    let read = async || {
        let found = api.get_opt(name).await;
        found.map_err(|error| ApiError::new(format!("read the Secret {namespace}/{name}"), error))
    };
    if let Some(found) = read().await? {
        return token(&found).ok_or_else(|| NoToken::Empty(format!("{namespace}/{name}")));
    }
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &secret(name, fresh)).await {
        Ok(_) => {
            tracing::info!(%namespace, %name, "created the write token of the cache registry");
            return Ok(fresh.clone());
        }
        Err(error) => {
            let error = ApiError::new(format!("create the Secret {namespace}/{name}"), error);
            if error.kind() != ApiErrorKind::AlreadyExists {
                return Err(error.into());
            }
        }
    }
    // Another replica created it first.
    let found = read().await?;
    found.as_ref().and_then(token).ok_or_else(|| NoToken::Empty(format!("{namespace}/{name}")))
}

fn token(secret: &ApiSecret) -> Option<Secret> {
    let ByteString(token) = secret.data.as_ref()?.get(KEY)?;
    let token = std::str::from_utf8(token).ok()?.trim();
    (!token.is_empty()).then(|| Secret::from(token))
}

fn secret(name: &str, token: &Secret) -> ApiSecret {
    let data = BTreeMap::from([(KEY.to_owned(), ByteString(token.expose().as_bytes().to_vec()))]);
    ApiSecret {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..ApiSecret::default()
    }
}
