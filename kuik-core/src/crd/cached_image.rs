//! CachedImage custom resource: one image to keep in the cache.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CACHED_IMAGE_FINALIZER, REPOSITORY_LABEL, cached_image_name, lenient, repository_label,
    schema::without_defaults,
};
use crate::reference::ImageReference;

/// One image in the cache, created for the pods that use it or manually (pre-heating).
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
    doc = "An image that is kept in the cache while pods use it.",
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Cached", "type": "boolean", "jsonPath": ".status.isCached"}"#,
    printcolumn = r#"{"name": "Retain", "type": "boolean", "jsonPath": ".spec.retain"}"#,
    printcolumn = r#"{"name": "Expires at", "type": "string", "jsonPath": ".spec.expiresAt"}"#,
    printcolumn = r#"{"name": "Pods count", "type": "integer", "jsonPath": ".status.usedBy.count"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Size", "type": "integer", "format": "int64", "priority": 1, "jsonPath": ".status.size"}"#,
    printcolumn = r#"{"name": "Progress", "type": "string", "priority": 1, "jsonPath": ".status.progress.percent"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "priority": 1, "jsonPath": ".status.conditions[?(@.type=='Ready')].reason"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct CachedImageSpec {
    /// The image reference, as in a pod: `nginx:1.25`, `quay.io/prometheus/prometheus@sha256:…`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[a-zA-Z0-9._:/@+\[\]-]+$"))]
    pub source_image: String,
    /// When the unused image expires. Set when the last pod is deleted, cleared when a pod uses the image again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Whether to keep the image even if no pod uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
}

impl CachedImage {
    /// Returns the object of an image, as the controllers create it: name, repository label, finalizer and the image as
    /// written. Create it through the Kubernetes API to have the image cached.
    ///
    /// If the name belongs to another image already, use [`disambiguated`](super::disambiguated) as the name.
    ///
    /// ```
    /// use kuik_core::{crd::CachedImage, reference::ImageReference};
    ///
    /// let image = CachedImage::of(&ImageReference::parse("nginx:1.25")?);
    /// assert_eq!(image.metadata.name.as_deref(), Some("docker.io-library-nginx-1.25"));
    /// assert_eq!(image.spec.source_image, "nginx:1.25");
    /// # Ok::<(), kuik_core::reference::ReferenceError>(())
    /// ```
    #[must_use]
    pub fn of(image: &ImageReference<'_>) -> Self {
        let spec =
            CachedImageSpec { source_image: image.as_written().to_owned(), ..CachedImageSpec::default() };
        let mut object = Self::new(&cached_image_name(image), spec);
        let label = (REPOSITORY_LABEL.to_owned(), repository_label(&image.repository()));
        object.metadata.labels = Some([label].into());
        object.metadata.finalizers = Some(vec![CACHED_IMAGE_FINALIZER.to_owned()]);
        object
    }
}

/// Observed state of a CachedImage.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CachedImageStatus {
    /// Whether all wanted content of the image was in the cache at the last check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_cached: Option<bool>,
    /// The phase of the image.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::known")]
    pub phase: Option<CachedImagePhase>,
    /// The pods that use the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<UsedBy>,
    /// The size of the cached image in bytes: the configurations and layers of its cached platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// The progress of the running pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<PullProgress>,
    /// The digest of the cached image, in hex without the algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The digest of the image upstream at the last check, in hex without the algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_digest: Option<String>,
    /// Whether the cached digest matches upstream as of the last check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_date: Option<bool>,
    /// When upstream was last checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync: Option<Time>,
    /// When the image was last pulled into the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_pull: Option<Time>,
    /// Whether the image existed upstream at the last check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_upstream: Option<bool>,
    /// When the image was last seen upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_upstream: Option<Time>,
    /// The generation of the spec that this status reflects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The condition `Ready`, for `kubectl wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}

/// The progress of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct PullProgress {
    /// The number of bytes in the cache so far.
    #[serde(default)]
    pub done_bytes: i64,
    /// The size of the image in bytes.
    #[serde(default)]
    pub total_bytes: i64,
    /// The share that is in the cache: `42%`.
    #[serde(default)]
    pub percent: String,
}

/// The pods that use an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct UsedBy {
    /// Names of some of them; there can be more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodReference>,
    /// The number of pods.
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

/// Phase of an image. Unknown values are read as none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CachedImagePhase {
    /// Checking or waiting to be pulled.
    Synchronizing,
    /// Being pulled into the cache.
    Pulling,
    /// The pull failed and is retried.
    ErrImagePull,
    /// In the cache.
    Ready,
    /// Being removed from the cache.
    Terminating,
}
