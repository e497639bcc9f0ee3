//! Certificate storage in Kubernetes: a Secret and a MutatingWebhookConfiguration.
//!
//! Patches include the observed resource version, and change only the four keys and the CA bundles. Required permissions:
//! `get` and `patch` on the two objects by name, and `create` on Secrets.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_client::{
    Api, Client, Error,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::Mutex;

use super::store::{CertificateStore, Observed, StoreError, Version, Written};

/// Field manager of all writes.
const MANAGER: &str = "kuik-webhook";

/// Names of the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectNames {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Name of the MutatingWebhookConfiguration.
    pub configuration: String,
}

/// Stores certificates in a cluster.
pub struct KubernetesStore {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    names: ObjectNames,
    /// The last observed names of the webhooks: a patch must name each.
    webhooks: Mutex<Vec<String>>,
}

impl KubernetesStore {
    /// Stores certificates in the objects `names` through `client`.
    #[must_use]
    pub fn new(client: &Client, names: ObjectNames) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &names.namespace),
            configurations: Api::all(client.clone()),
            names,
            webhooks: Mutex::default(),
        }
    }

    fn secret(&self) -> String {
        format!("the Secret {}/{}", self.names.namespace, self.names.secret)
    }

    fn configuration(&self) -> String {
        format!("the MutatingWebhookConfiguration {}", self.names.configuration)
    }
}

impl std::fmt::Debug for KubernetesStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesStore").field("names", &self.names).finish_non_exhaustive()
    }
}

#[async_trait]
impl CertificateStore for KubernetesStore {
    async fn observe(&self) -> Result<Observed, StoreError> {
        let secret = self.secrets.get_opt(&self.names.secret).await;
        let secret = secret.map_err(|error| StoreError::new(format!("read {}", self.secret()), error))?;
        let secret = secret.map(|secret| {
            let data =
                secret.data.unwrap_or_default().into_iter().map(|(key, ByteString(value))| (key, value));
            (data.collect(), secret.metadata.resource_version.unwrap_or_default())
        });
        let found = self.configurations.get_opt(&self.names.configuration).await;
        let found =
            found.map_err(|error| StoreError::new(format!("read {}", self.configuration()), error))?;
        let mut names = self.webhooks.lock().await;
        names.clear();
        let trust = found.map(|found| {
            let webhooks = found.webhooks.unwrap_or_default();
            names.extend(webhooks.iter().map(|webhook| webhook.name.clone()));
            let bundles = webhooks.into_iter().map(|webhook| webhook.client_config.ca_bundle);
            let bundles = bundles.map(|bundle| bundle.map(|ByteString(bundle)| bundle).unwrap_or_default());
            (bundles.collect(), found.metadata.resource_version.unwrap_or_default())
        });
        Ok(Observed { secret, trust })
    }

    async fn write(
        &self,
        data: BTreeMap<String, Vec<u8>>,
        version: Option<&Version>,
    ) -> Result<Written, StoreError> {
        let data: BTreeMap<_, _> = data.into_iter().map(|(key, value)| (key, ByteString(value))).collect();
        let name = &self.names.secret;
        let written = match version {
            None => {
                let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                let secret = Secret { metadata, data: Some(data), ..Secret::default() };
                let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                self.secrets.create(&params, &secret).await.map(drop)
            }
            Some(version) => {
                let patch = json!({ "metadata": { "resourceVersion": version }, "data": data });
                self.secrets.patch(name, &manager(), &Patch::Merge(patch)).await.map(drop)
            }
        };
        written_or_conflict(written)
            .map_err(|error| StoreError::new(format!("write {}", self.secret()), error))
    }

    async fn publish(&self, bundle: &str, version: &Version) -> Result<Written, StoreError> {
        let bundle = ByteString(bundle.as_bytes().to_vec());
        let names = self.webhooks.lock().await.clone();
        let webhooks: Vec<_> = names
            .iter()
            .map(|name| json!({ "name": name, "clientConfig": { "caBundle": bundle } }))
            .collect();
        let patch = json!({ "metadata": { "resourceVersion": version }, "webhooks": webhooks });
        let name = &self.names.configuration;
        let patched = self.configurations.patch(name, &manager(), &Patch::Strategic(patch)).await.map(drop);
        written_or_conflict(patched)
            .map_err(|error| StoreError::new(format!("set the caBundle in {}", self.configuration()), error))
    }
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// Treats a conflict or a deleted object as a reason to observe again.
fn written_or_conflict(result: Result<(), Error>) -> Result<Written, Error> {
    match result {
        Ok(()) => Ok(Written::Done),
        Err(Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}
