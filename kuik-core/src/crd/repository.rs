//! Repository custom resource: settings shared by the images of one repository.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{duration, lenient, schema::without_defaults};

/// Settings shared by the images of one repository: pull secrets and update checks.
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
    kind = "Repository",
    plural = "repositories",
    singular = "repository",
    shortname = "repo",
    status = "RepositoryStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Settings shared by the images of one repository: pull secrets and update checks.",
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Images", "type": "integer", "jsonPath": ".status.images"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RepositorySpec {
    /// The repository, including the registry: `docker.io/library/nginx`.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    /// Pull secrets of the type `kubernetes.io/dockerconfigjson`, in the order in which they are tried. Set manually;
    /// never changed by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_names: Option<Vec<String>>,
    /// The namespace of these secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secrets_namespace: Option<String>,
    /// Interval of upstream checks of tags, as a Go duration: `1h30m`. Unset means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_interval: Option<UpdateInterval>,
    /// Regular expressions, one of which must match part of an image's `sourceImage` for it to be checked. None means
    /// every image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_filters: Option<Vec<String>>,
}

/// Observed state of a Repository.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// The number of its CachedImages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<i64>,
    /// `Ready`, or the reason why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::known")]
    pub phase: Option<RepositoryPhase>,
    /// When its tags were last checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
    /// The pull secrets of the pods that use its images and of their ServiceAccounts, across all namespaces, in the
    /// order in which they are tried, after those of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secrets: Option<Vec<PullSecret>>,
    /// The condition `Ready`, for `kubectl wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}

/// A pull secret of the type `kubernetes.io/dockerconfigjson`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct PullSecret {
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

impl Repository {
    /// Iterates over the pull secrets in the order in which they are tried: those of the spec, then those of pods.
    pub fn pull_secrets(&self) -> impl Iterator<Item = PullSecret> {
        let RepositorySpec { pull_secret_names, pull_secrets_namespace, .. } = &self.spec;
        let by_hand = pull_secrets_namespace.iter().flat_map(move |namespace| {
            let names = pull_secret_names.iter().flatten();
            names.map(|name| PullSecret { namespace: namespace.clone(), name: name.clone() })
        });
        let of_pods = self.status.iter().flat_map(|status| status.pull_secrets.iter().flatten().cloned());
        by_hand.chain(of_pods)
    }
}

/// Phase of a repository. Unknown values are read as none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RepositoryPhase {
    /// All its images are cached.
    Ready,
    /// Some of its images are being pulled.
    Pulling,
    /// The pull of an image failed.
    ErrImagePull,
    /// Being deleted, waiting for its images.
    Terminating,
}

/// A Go duration: `1h30m`, `45s`, `1.5h`.
///
/// The text is kept even if invalid, so that an object with a mistake can still be read; [`UpdateInterval::duration`]
/// reports the mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UpdateInterval(#[schemars(regex(pattern = duration::PATTERN))] pub String);

/// An invalid Go duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid duration {0:?}: expected a Go duration such as 1h30m, with the units ns, us, ms, s, m and h"
)]
pub struct InvalidInterval(String);

impl UpdateInterval {
    /// Parses the duration.
    ///
    /// # Errors
    /// Returns an error if it is invalid or negative.
    pub fn duration(&self) -> Result<Duration, InvalidInterval> {
        duration::parse(&self.0).ok_or_else(|| InvalidInterval(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_interval_does_not_prevent_decoding_the_object() {
        let json = r#"{"name": "docker.io/library/nginx", "updateInterval": "often"}"#;
        let spec: RepositorySpec = serde_json::from_str(json).unwrap();
        assert!(spec.update_interval.unwrap().duration().is_err());
    }
}
