//! The token that opens the cache registry for writing: made once, kept in a Secret that the registry mounts.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret as ApiSecret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_client::{Api, Client, api::PostParams};

use super::{ApiError, ApiErrorKind, FIELD_MANAGER};
use crate::credentials::Secret;

/// The key of the Secret that holds the token.
const KEY: &str = "token";

/// There is no token, and none could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoToken {
    /// The API server refused, or did not answer.
    #[error("there is no token for the cache registry")]
    Api(#[from] ApiError),
    /// The Secret is there, and has no token in it.
    #[error("the Secret {0} has no {KEY:?} in it: delete it, and it is made again")]
    Empty(String),
}

/// The token in the Secret `name` of `namespace`. Where there is no such Secret it is made, with `fresh`, which is
/// random, in it. Of several replicas that start together one makes it, and all have that one's token.
///
/// # Errors
/// Where it can neither be read nor made.
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
            tracing::info!(%namespace, %name, "the token of the cache registry is made");
            return Ok(fresh.clone());
        }
        Err(error) => {
            let error = ApiError::new(format!("create the Secret {namespace}/{name}"), error);
            if error.kind() != ApiErrorKind::AlreadyExists {
                return Err(error.into());
            }
        }
    }
    // Another replica was quicker.
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
