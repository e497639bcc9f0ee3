//! CachedImage: one image that is kept close to the cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{lenient, schema::without_defaults};

/// One image that is kept in the cache: asked for by the pods that use it, or by hand (pre-heating).
#[derive(
    Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, kube_derive::CustomResource,
)]
#[kube(
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    ),
    group = "kuik.enix.io",
    version = "v1alpha1",
    kind = "CachedImage",
    plural = "cachedimages",
    singular = "cachedimage",
    shortname = "ci",
    status = "CachedImageStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "One image that is kept in the cache, for as long as a pod uses it.",
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Cached", "type": "boolean", "jsonPath": ".status.isCached"}"#,
    printcolumn = r#"{"name": "Retain", "type": "boolean", "jsonPath": ".spec.retain"}"#,
    printcolumn = r#"{"name": "Expires at", "type": "string", "jsonPath": ".spec.expiresAt"}"#,
    printcolumn = r#"{"name": "Pods count", "type": "integer", "jsonPath": ".status.usedBy.count"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct CachedImageSpec {
    /// The image to keep, as a pod names it: `nginx:1.25`, `quay.io/prometheus/prometheus@sha256:…`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[a-zA-Z0-9._:/@+\[\]-]+$"))]
    pub source_image: String,
    /// When the image goes, if no pod uses it by then. Set when the last pod is gone, cleared when one uses it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Whether the image stays though no pod uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
}

/// What is known of an image that is kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CachedImageStatus {
    /// Whether all of the image that is to be kept was in the cache when that was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_cached: Option<bool>,
    /// What is happening to the image.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::known")]
    pub phase: Option<CachedImagePhase>,
    /// The pods that use the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<UsedBy>,
    /// The digest of what the cache has, in hex without the algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The digest that the image's own registry had when it was last asked, in hex without the algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_digest: Option<String>,
    /// Whether the two digests were the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_date: Option<bool>,
    /// When the image's own registry was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync: Option<Time>,
    /// When the image was last put into the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_pull: Option<Time>,
    /// Whether the image's own registry had it when it was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_upstream: Option<bool>,
    /// When the image's own registry was last seen to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_upstream: Option<Time>,
    /// The newest generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How the image is, in the form that `kubectl wait` reads: `Ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}

/// The pods that use an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct UsedBy {
    /// Some of them; there can be more than are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodReference>,
    /// How many there are.
    #[serde(default)]
    pub count: i64,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct PodReference {
    /// `namespace/name`.
    #[serde(default)]
    pub namespaced_name: String,
}

/// What is happening to an image. One that is not known here is read as none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CachedImagePhase {
    /// Its own registry is asked what the image is now.
    Synchronizing,
    /// It is being put into the cache.
    Pulling,
    /// It could not be put into the cache; it is tried again.
    ErrImagePull,
    /// The cache has it.
    Ready,
    /// It is being removed from the cache.
    Terminating,
}
