//! Which pods are left alone altogether, whatever images they have: the second line behind the selectors of the webhook's
//! configuration, which somebody may have changed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::review::Operation;
use crate::pod::opts_out;

/// What the pods of the control plane itself are in: a cache has to be up for them never.
const KUBE_SYSTEM: &str = "kube-system";

/// The kubelet's copy in the API of a pod that a file on its node describes: what it says is not what is pulled.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The namespaces whose pods are left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoredNamespaces(BTreeSet<String>);

/// Why a pod is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeftAlone {
    /// It is in a namespace whose pods are.
    Namespace,
    /// It carries the label that opts out.
    OptedOut,
    /// It mirrors a pod that its node has from a file.
    Mirror,
    /// It is being deleted.
    Terminating,
    /// It is neither made nor changed.
    Operation,
    /// A part of it is written that has no images.
    Subresource,
    /// It is no pod.
    OtherKind,
    /// It has not the shape of a pod.
    Malformed,
}

impl IgnoredNamespaces {
    /// kube-system is always among them; kuik's own namespace should be.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Whether pods in `namespace` are left alone.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        namespace == KUBE_SYSTEM || self.0.contains(namespace)
    }

    /// Why the pod is left alone, if it is.
    pub(super) fn keep_out(
        &self,
        namespace: &str,
        operation: Operation,
        metadata: &Value,
    ) -> Option<LeftAlone> {
        let labels = metadata.get("labels").unwrap_or(&Value::Null);
        let mirrors = || metadata.pointer("/annotations").is_some_and(|all| all.get(MIRROR).is_some());
        let ends = || metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null());
        match () {
            () if self.contains(namespace) => Some(LeftAlone::Namespace),
            () if opts_out(labels) => Some(LeftAlone::OptedOut),
            () if mirrors() => Some(LeftAlone::Mirror),
            () if operation == Operation::Update && ends() => Some(LeftAlone::Terminating),
            () => None,
        }
    }
}

impl LeftAlone {
    /// A stable name for metrics and machines, of lower-case letters and `_`.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::OptedOut => "opted_out",
            Self::Mirror => "mirror",
            Self::Terminating => "terminating",
            Self::Operation => "operation",
            Self::Subresource => "subresource",
            Self::OtherKind => "other_kind",
            Self::Malformed => "malformed",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_reason_is_told() {
        let ignored = IgnoredNamespaces::new(["kuik".to_owned()]);
        let label = json!({ "labels": { "kube-image-keeper.enix.io/image-caching-policy": "ignore" } });
        let mirror = json!({ "annotations": { "kubernetes.io/config.mirror": "hash" } });
        let ends = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": null });
        let (create, update) = (Operation::Create, Operation::Update);
        for (namespace, operation, metadata, expected) in [
            ("kube-system", create, &json!({}), Some(LeftAlone::Namespace)),
            ("kuik", update, &json!({}), Some(LeftAlone::Namespace)),
            ("shop", create, &label, Some(LeftAlone::OptedOut)),
            ("shop", update, &mirror, Some(LeftAlone::Mirror)),
            ("shop", update, &ends, Some(LeftAlone::Terminating)),
            ("shop", create, &ends, None),
            ("shop", create, &json!({ "annotations": null, "labels": { "a": "b" } }), None),
            ("shop", create, &json!(null), None),
        ] {
            assert_eq!(ignored.keep_out(namespace, operation, metadata), expected, "{namespace} {metadata}");
        }
    }
}
