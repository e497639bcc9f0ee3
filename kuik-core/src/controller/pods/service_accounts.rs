//! Slim ServiceAccount objects: only their pull secrets.

use std::borrow::Cow;

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;

/// A ServiceAccount reduced to the names of its pull secrets.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Wire")]
pub struct SlimAccount {
    /// Name, namespace and version only.
    pub metadata: ObjectMeta,
    /// Pull secrets of its pods, in its namespace.
    pub pull_secrets: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    metadata: Option<WireMeta>,
    image_pull_secrets: Option<Vec<WireName>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireName {
    name: Option<String>,
}

impl From<Wire> for SlimAccount {
    fn from(Wire { metadata, image_pull_secrets }: Wire) -> Self {
        let WireMeta { name, namespace, resource_version } = metadata.unwrap_or_default();
        Self {
            metadata: ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() },
            pull_secrets: image_pull_secrets.into_iter().flatten().filter_map(|secret| secret.name).collect(),
        }
    }
}

/// Watched as the API's ServiceAccount.
impl kube_core::Resource for SlimAccount {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "ServiceAccount".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "serviceaccounts".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
