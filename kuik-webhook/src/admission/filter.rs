//! Pods that are skipped entirely, whatever their images. A second check after the selectors of the webhook configuration,
//! which users can change.

use std::collections::BTreeSet;

use kube_core::{Selector, SelectorExt as _};
use serde_json::Value;

use super::review::{Operation, Request};
use crate::pod::opts_out;

/// The namespace of control plane pods, which must never depend on the cache.
const KUBE_SYSTEM: &str = "kube-system";

/// Annotation of a mirror pod: the API object of a static pod. The kubelet pulls the images in its file, not in the object.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Selects the pods to mutate: those outside the ignored namespaces that match the selector.
#[derive(Debug, Clone, Default)]
pub(super) struct PodFilter {
    /// Ignored namespaces, in addition to kube-system.
    pub(super) ignored: BTreeSet<String>,
    /// Label selector of pods.
    pub(super) selector: Selector,
}

/// Why an object is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its namespace is ignored.
    Namespace,
    /// It has the opt-out label.
    OptedOut,
    /// Its labels do not match the selector.
    NotSelected,
    /// It is a mirror pod.
    Mirror,
    /// It is being deleted.
    Terminating,
    /// The operation is neither a create nor an update.
    Operation,
    /// The request is for a subresource without images.
    Subresource,
    /// It is of another kind than the path expects.
    OtherKind,
    /// It does not have the shape of a pod.
    Malformed,
}

impl PodFilter {
    /// Returns why the pod of `request` is skipped, if it is; `metadata` is its new metadata.
    pub(super) fn skips(&self, request: &Request<'_>, metadata: &Value) -> Option<SkipReason> {
        let labels = metadata.get("labels").unwrap_or(&Value::Null);
        let before = request.old_object.pointer("/metadata/labels");
        let is_mirror = || metadata.pointer("/annotations").is_some_and(|all| all.get(MIRROR).is_some());
        let is_terminating = || metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null());
        match () {
            () if self.ignores(&request.namespace) => Some(SkipReason::Namespace),
            () if opts_out(labels) => Some(SkipReason::OptedOut),
            () if !self.selects(labels, before) => Some(SkipReason::NotSelected),
            () if is_mirror() => Some(SkipReason::Mirror),
            () if request.operation == Operation::Update && is_terminating() => Some(SkipReason::Terminating),
            () => None,
        }
    }

    fn ignores(&self, namespace: &str) -> bool {
        namespace == KUBE_SYSTEM || self.ignored.contains(namespace)
    }

    /// Matches like an API server: an update is selected by the labels before or after it.
    fn selects(&self, labels: &Value, before: Option<&Value>) -> bool {
        let selected = |labels: &Value| {
            let labels = labels.as_object().into_iter().flatten();
            let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            self.selector.matches(&labels.collect())
        };
        self.selector.selects_all() || selected(labels) || before.is_some_and(selected)
    }
}

impl SkipReason {
    /// Returns a stable identifier for metrics and programs, of lower-case letters and `_`.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::OptedOut => "opted_out",
            Self::NotSelected => "not_selected",
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
    use kube_core::Expression;
    use serde_json::json;

    use super::*;

    fn why(
        filter: &PodFilter,
        namespace: &str,
        operation: &str,
        old: &Value,
        new: &Value,
    ) -> Option<SkipReason> {
        let request = json!({
            "uid": "1", "kind": {}, "namespace": namespace, "operation": operation, "oldObject": { "metadata": old },
        });
        let text = request.to_string();
        filter.skips(&serde_json::from_str(&text).unwrap(), new)
    }

    #[test]
    fn skips_returns_reason() {
        let ignored = ["kuik".to_owned()].into();
        let filter = PodFilter { ignored, ..PodFilter::default() };
        let label = json!({ "labels": { "kube-image-keeper.enix.io/image-caching-policy": "ignore" } });
        let mirror = json!({ "annotations": { "kubernetes.io/config.mirror": "hash" } });
        let terminating = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": null });
        for (namespace, operation, metadata, expected) in [
            ("kube-system", "CREATE", &json!({}), Some(SkipReason::Namespace)),
            ("kuik", "UPDATE", &json!({}), Some(SkipReason::Namespace)),
            ("shop", "CREATE", &label, Some(SkipReason::OptedOut)),
            ("shop", "UPDATE", &mirror, Some(SkipReason::Mirror)),
            ("shop", "UPDATE", &terminating, Some(SkipReason::Terminating)),
            ("shop", "CREATE", &terminating, None),
            ("shop", "CREATE", &json!({ "annotations": null, "labels": { "a": "b" } }), None),
            ("shop", "CREATE", &json!(null), None),
        ] {
            let found = why(&filter, namespace, operation, &json!(null), metadata);
            assert_eq!(found, expected, "{namespace} {metadata}");
        }
    }

    #[test]
    fn selector_matches_labels_before_or_after_update() {
        let selector = [
            Expression::In("team".into(), ["shop".into(), "search".into()].into()),
            Expression::DoesNotExist("canary".into()),
        ];
        let filter = PodFilter { selector: selector.into_iter().collect(), ..PodFilter::default() };
        let shop = json!({ "labels": { "team": "shop" } });
        let other = json!({ "labels": { "team": "other" } });
        let canary = json!({ "labels": { "team": "shop", "canary": "" } });
        let none = json!({});
        let skipped = Some(SkipReason::NotSelected);
        for (operation, old, new, expected) in [
            ("CREATE", &json!(null), &shop, None),
            ("CREATE", &json!(null), &other, skipped),
            ("CREATE", &json!(null), &canary, skipped),
            ("CREATE", &json!(null), &none, skipped),
            ("CREATE", &json!(null), &json!({ "labels": { "team": 1 } }), skipped),
            ("UPDATE", &shop, &other, None),
            ("UPDATE", &other, &shop, None),
            ("UPDATE", &none, &canary, skipped),
        ] {
            assert_eq!(why(&filter, "web", operation, old, new), expected, "{operation} {old} {new}");
        }
    }
}
