//! Pod metadata for policies, read from a pod's JSON.

use kuik_core::rewrite::{Placement, PodContext, Toleration};
use serde_json::Value;

/// The metadata of a pod that a policy can use. Borrows from the pod's JSON.
///
/// ```
/// use kuik_webhook::pod::PodMetadata;
/// use serde_json::json;
///
/// let pod = json!({ "metadata": { "namespace": "shop", "labels": { "team": "checkout" } }, "spec": {} });
/// let metadata = PodMetadata::new(&pod["metadata"], &pod["spec"]);
/// assert_eq!(metadata.context().label("team"), Some("checkout"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodMetadata<'a> {
    namespace: &'a str,
    service_account: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    annotations: Vec<(&'a str, &'a str)>,
    placement: Placement,
}

impl<'a> PodMetadata<'a> {
    /// Reads the `metadata` and `spec` of a pod or pod template. Malformed parts count as absent.
    #[must_use]
    pub fn new(metadata: &'a Value, spec: &'a Value) -> Self {
        let labels: Vec<_> = pairs(metadata, "labels").collect();
        let placement =
            labels.iter().fold(placement(spec), |placement, (key, _)| placement.with_pod_label(key));
        Self {
            namespace: text(metadata, "namespace"),
            service_account: text(spec, "serviceAccountName"),
            labels,
            annotations: pairs(metadata, "annotations").collect(),
            placement,
        }
    }

    /// Sets the namespace. Templates, and pods in admission reviews of older API servers, do not contain it.
    #[must_use]
    pub fn with_namespace(self, namespace: &'a str) -> Self {
        Self { namespace, ..self }
    }

    /// Returns the context for a policy.
    #[must_use]
    pub fn context(&self) -> PodContext<'_> {
        PodContext::new(self.namespace)
            .with_service_account(self.service_account)
            .with_labels(&self.labels)
            .with_annotations(&self.annotations)
            .with_placement(self.placement)
    }
}

/// Reads what a pod spec says about its node.
fn placement(spec: &Value) -> Placement {
    let os = spec.get("os").unwrap_or(&Value::Null);
    let placement = Placement::default()
        .with_priority_class(text(spec, "priorityClassName"))
        .with_host_network(spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or_default())
        .with_os(text(os, "name"));
    let placement = pairs(spec, "nodeSelector")
        .fold(placement, |placement, (key, value)| placement.with_node_label(key, value));
    let tolerations = spec.get("tolerations").and_then(Value::as_array).into_iter().flatten();
    tolerations.fold(placement, |placement, toleration| {
        let [key, operator, effect] = ["key", "operator", "effect"].map(|field| text(toleration, field));
        placement.with_toleration(Toleration { key, operator, effect })
    })
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the entries of a map of strings.
fn pairs<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let entries = object.get(key).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn context_has_namespace_service_account_labels_and_annotations() {
        let metadata = json!({ "labels": { "app": "web", "odd": 1 }, "annotations": { "note": "x" } });
        let spec = json!({ "serviceAccountName": "robot" });
        let metadata = PodMetadata::new(&metadata, &spec).with_namespace("shop");
        let pod = metadata.context();
        assert_eq!((pod.namespace, pod.service_account), ("shop", "robot"));
        assert_eq!(
            (pod.label("app"), pod.label("odd"), pod.annotation("note")),
            (Some("web"), None, Some("x"))
        );
    }

    #[test]
    fn placement_is_read_from_spec_and_labels() {
        let placement = |spec| PodMetadata::new(&json!({}), &spec).placement;
        let everywhere = json!([{ "operator": "Exists" }]);
        assert!(placement(json!({ "priorityClassName": "system-node-critical" })).is_node_critical());
        assert!(placement(json!({ "hostNetwork": true, "tolerations": everywhere })).is_node_critical());
        assert!(!placement(json!({ "tolerations": everywhere })).is_node_critical());
        assert!(placement(json!({ "os": { "name": "windows" } })).is_windows());
        assert!(placement(json!({ "nodeSelector": { "kubernetes.io/os": "windows" } })).is_windows());
        let fargate = json!({ "labels": { "eks.amazonaws.com/fargate-profile": "default" } });
        assert!(PodMetadata::new(&fargate, &json!({})).placement.is_virtual());
    }

    #[test]
    fn malformed_metadata_is_empty() {
        let odd = json!({
            "labels": [], "annotations": "x", "os": "windows", "tolerations": { "operator": "Exists" },
            "nodeSelector": ["kubernetes.io/os"], "hostNetwork": "true", "priorityClassName": 7,
        });
        for value in [json!(null), json!([1]), odd] {
            assert_eq!(PodMetadata::new(&value, &value), PodMetadata::default(), "{value}");
        }
    }
}
