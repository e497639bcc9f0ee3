//! Which pods are left alone altogether, whatever images they have: the second line behind the selectors of the webhook's
//! configuration, which somebody may have changed.

use std::collections::BTreeSet;

use kube_core::{Selector, SelectorExt as _};
use serde_json::Value;

use super::review::{Operation, Request};
use crate::pod::opts_out;

/// What the pods of the control plane itself are in: a cache has to be up for them never.
const KUBE_SYSTEM: &str = "kube-system";

/// The kubelet's copy in the API of a pod that a file on its node describes: what it says is not what is pulled.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The namespaces whose pods are left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoredNamespaces(BTreeSet<String>);

/// Whose pods are looked at: all but those of some namespaces that the selector has.
#[derive(Debug, Clone, Default)]
pub(super) struct PodFilter {
    pub(super) ignored: IgnoredNamespaces,
    pub(super) selector: Selector,
}

/// Why a pod is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeftAlone {
    /// It is in a namespace whose pods are.
    Namespace,
    /// It carries the label that opts out.
    OptedOut,
    /// The selector of pods does not have its labels.
    NotSelected,
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
}

impl PodFilter {
    /// Why the pod that `request` is about is left alone, if it is; `metadata` is what it is to have.
    pub(super) fn keep_out(&self, request: &Request<'_>, metadata: &Value) -> Option<LeftAlone> {
        let labels = metadata.get("labels").unwrap_or(&Value::Null);
        let before = request.old_object.pointer("/metadata/labels");
        let mirrors = || metadata.pointer("/annotations").is_some_and(|all| all.get(MIRROR).is_some());
        let ends = || metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null());
        match () {
            () if self.ignored.contains(&request.namespace) => Some(LeftAlone::Namespace),
            () if opts_out(labels) => Some(LeftAlone::OptedOut),
            () if !self.selects(labels, before) => Some(LeftAlone::NotSelected),
            () if mirrors() => Some(LeftAlone::Mirror),
            () if request.operation == Operation::Update && ends() => Some(LeftAlone::Terminating),
            () => None,
        }
    }

    /// As the API server does it: an update is selected by what the pod is to be, or by what it was.
    fn selects(&self, labels: &Value, before: Option<&Value>) -> bool {
        let selected = |labels: &Value| {
            let labels = labels.as_object().into_iter().flatten();
            let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            self.selector.matches(&labels.collect())
        };
        self.selector.selects_all() || selected(labels) || before.is_some_and(selected)
    }
}

impl LeftAlone {
    /// A stable name for metrics and machines, of lower-case letters and `_`.
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
    ) -> Option<LeftAlone> {
        let request = json!({
            "uid": "1", "kind": {}, "namespace": namespace, "operation": operation, "oldObject": { "metadata": old },
        });
        let text = request.to_string();
        filter.keep_out(&serde_json::from_str(&text).unwrap(), new)
    }

    #[test]
    fn each_reason_is_told() {
        let ignored = IgnoredNamespaces::new(["kuik".to_owned()]);
        let filter = PodFilter { ignored, ..PodFilter::default() };
        let label = json!({ "labels": { "kube-image-keeper.enix.io/image-caching-policy": "ignore" } });
        let mirror = json!({ "annotations": { "kubernetes.io/config.mirror": "hash" } });
        let ends = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": null });
        for (namespace, operation, metadata, expected) in [
            ("kube-system", "CREATE", &json!({}), Some(LeftAlone::Namespace)),
            ("kuik", "UPDATE", &json!({}), Some(LeftAlone::Namespace)),
            ("shop", "CREATE", &label, Some(LeftAlone::OptedOut)),
            ("shop", "UPDATE", &mirror, Some(LeftAlone::Mirror)),
            ("shop", "UPDATE", &ends, Some(LeftAlone::Terminating)),
            ("shop", "CREATE", &ends, None),
            ("shop", "CREATE", &json!({ "annotations": null, "labels": { "a": "b" } }), None),
            ("shop", "CREATE", &json!(null), None),
        ] {
            let found = why(&filter, namespace, operation, &json!(null), metadata);
            assert_eq!(found, expected, "{namespace} {metadata}");
        }
    }

    #[test]
    fn what_the_selector_has_not_is_left_alone_before_and_after_an_update() {
        let selector = [
            Expression::In("team".into(), ["shop".into(), "search".into()].into()),
            Expression::DoesNotExist("canary".into()),
        ];
        let filter = PodFilter { selector: selector.into_iter().collect(), ..PodFilter::default() };
        let shop = json!({ "labels": { "team": "shop" } });
        let other = json!({ "labels": { "team": "other" } });
        let canary = json!({ "labels": { "team": "shop", "canary": "" } });
        let none = json!({});
        let left = Some(LeftAlone::NotSelected);
        for (operation, old, new, expected) in [
            ("CREATE", &json!(null), &shop, None),
            ("CREATE", &json!(null), &other, left),
            ("CREATE", &json!(null), &canary, left),
            ("CREATE", &json!(null), &none, left),
            ("CREATE", &json!(null), &json!({ "labels": { "team": 1 } }), left),
            ("UPDATE", &shop, &other, None),
            ("UPDATE", &other, &shop, None),
            ("UPDATE", &none, &canary, left),
        ] {
            assert_eq!(why(&filter, "web", operation, old, new), expected, "{operation} {old} {new}");
        }
    }
}
