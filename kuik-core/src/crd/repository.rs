//! Repository: what the images of one repository share.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{duration, lenient, schema::without_defaults};

/// What the images of one repository share: the secrets that open it, and when its tags are checked again.
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
    doc = "What the images of one repository share: the secrets that open it, and when its tags are checked again.",
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Images", "type": "integer", "jsonPath": ".status.images"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RepositorySpec {
    /// The repository with its registry: `docker.io/library/nginx`.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    /// Secrets of the type `kubernetes.io/dockerconfigjson` that open the repository, in the order in which they are
    /// tried. Those that are set here by hand stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_names: Option<Vec<String>>,
    /// The namespace of those secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secrets_namespace: Option<String>,
    /// After how long tags are checked again, as a Go duration: `1h30m`. Never where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_interval: Option<UpdateInterval>,
    /// Regular expressions, of which one has to be found in the `sourceImage` of an image that is checked again. None
    /// means every image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_filters: Option<Vec<String>>,
}

/// What is known of a repository.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// How many CachedImages it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<i64>,
    /// `Ready`, or the reason why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::known")]
    pub phase: Option<RepositoryPhase>,
    /// When its tags were last checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
    /// The secrets that open the repository as the pods that use its images name them, and their ServiceAccounts: those
    /// of every namespace, in the order in which they are tried, after those of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secrets: Option<Vec<PullSecret>>,
    /// How it is, in the form that `kubectl wait` reads: `Ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}

/// A secret of the type `kubernetes.io/dockerconfigjson`.
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
    /// The secrets that open the repository, in the order in which they are tried: those that were set by hand, then
    /// those of the pods.
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

/// What is happening to a repository. One that is not known here is read as none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RepositoryPhase {
    /// Its images are in the cache.
    Ready,
    /// Some of its images are being put into the cache.
    Pulling,
    /// An image could not be put into the cache.
    ErrImagePull,
    /// It is being removed, and waits for its images.
    Terminating,
}

/// A span of time as Go writes it: `1h30m`, `45s`, `1.5h`.
///
/// It is kept as written, also where it is no duration: an object with a mistake in it is still read, and the mistake is
/// told by [`UpdateInterval::duration`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UpdateInterval(#[schemars(regex(pattern = duration::PATTERN))] pub String);

/// A text that is not a duration as Go writes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write it like 1h30m, with the units ns, us, ms, s, m and h")]
pub struct InvalidInterval(String);

impl UpdateInterval {
    /// How long it is.
    ///
    /// # Errors
    /// Where it is not a duration, or a negative one.
    pub fn duration(&self) -> Result<Duration, InvalidInterval> {
        duration::parse(&self.0).ok_or_else(|| InvalidInterval(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_that_is_none_does_not_keep_the_object_from_being_read() {
        let json = r#"{"name": "docker.io/library/nginx", "updateInterval": "often"}"#;
        let spec: RepositorySpec = serde_json::from_str(json).unwrap();
        assert!(spec.update_interval.unwrap().duration().is_err());
    }
}
