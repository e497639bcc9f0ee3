//! Workload discovery: finds the pod specs in a document, in Pods, resources with a pod template, and Lists.
//!
//! Unknown kinds are found by their shape (an Argo Rollout, a Knative Service).

use std::fmt;

use kuik_webhook::pod::PodMetadata;
use serde_json::Value;

/// Identity of an object with a pod spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity<'a> {
    pub(super) kind: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: Option<&'a str>,
}

/// A pod spec, its object, and the JSON pointer to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workload<'a> {
    pub(super) of: Identity<'a>,
    pub(super) pod_spec: &'a Value,
    pub(super) pointer: String,
    /// Pod metadata: of the pod itself, next to its spec, and not that of a Deployment around it.
    pub(super) metadata: PodMetadata<'a>,
}

/// Pod spec paths of the built-in kinds, so that a malformed one is reported and not ignored.
const KNOWN: [(&str, &str); 9] = [
    ("Pod", "/spec"),
    ("PodTemplate", "/template/spec"),
    ("Deployment", TEMPLATE),
    ("StatefulSet", TEMPLATE),
    ("DaemonSet", TEMPLATE),
    ("ReplicaSet", TEMPLATE),
    ("ReplicationController", TEMPLATE),
    ("Job", TEMPLATE),
    ("CronJob", JOB_TEMPLATE),
];
const TEMPLATE: &str = "/spec/template/spec";
const JOB_TEMPLATE: &str = "/spec/jobTemplate/spec/template/spec";

/// Returns every pod spec of a document, in document order.
pub(super) fn workloads(document: &Value) -> Vec<Workload<'_>> {
    let mut found = Vec::new();
    collect(document, "", "", &mut found);
    found
}

/// Collects pod specs. `implied` is the kind of an object without one: the API server omits it inside a `PodList`.
// Recursion depth is that of nested lists, which the depth of a value bounds.
fn collect<'a>(object: &'a Value, base: &str, implied: &'a str, found: &mut Vec<Workload<'a>>) {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or(implied);
    if let Some(implied) = kind.strip_suffix("List") {
        let items = object.get("items").and_then(Value::as_array);
        for (index, item) in items.into_iter().flatten().enumerate() {
            collect(item, &format!("{base}/items/{index}"), implied, found);
        }
    }
    let known = KNOWN.iter().find(|(name, _)| *name == kind).map(|(_, at)| *at);
    let at = known
        .filter(|at| object.pointer(at).is_some_and(|spec| !spec.is_null()))
        .or_else(|| by_shape(object));
    let Some(at) = at else { return };
    if let Some(pod_spec) = object.pointer(at) {
        let metadata =
            |field| object.pointer("/metadata").and_then(|data| data.get(field)).and_then(Value::as_str);
        let of = Identity { kind, namespace: metadata("namespace"), name: metadata("name") };
        let of_pod = at.strip_suffix("/spec").and_then(|pod| object.pointer(&format!("{pod}/metadata")));
        let metadata = PodMetadata::new(of_pod.unwrap_or(&Value::Null), pod_spec)
            .with_namespace(of.namespace.unwrap_or_default());
        found.push(Workload { of, pod_spec, pointer: format!("{base}{at}"), metadata });
    }
}

fn by_shape(object: &Value) -> Option<&'static str> {
    let holds_containers =
        |at: &&str| object.pointer(at).is_some_and(|spec| spec.get("containers").is_some());
    [TEMPLATE, JOB_TEMPLATE].into_iter().find(holds_containers)
}

impl fmt::Display for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind.is_empty() { "-" } else { self.kind };
        write!(f, "{kind}/{}/{}", self.namespace.unwrap_or("-"), self.name.unwrap_or("-"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(document: &Value) -> Vec<String> {
        workloads(document).iter().map(|workload| format!("{} {}", workload.of, workload.pointer)).collect()
    }

    #[test]
    fn every_kind_that_holds_a_pod_spec_is_found() {
        let spec = json!({ "containers": [] });
        for kind in [
            "Deployment",
            "StatefulSet",
            "DaemonSet",
            "ReplicaSet",
            "ReplicationController",
            "Job",
            "Rollout",
        ] {
            let object = json!({ "kind": kind, "metadata": { "name": "a", "namespace": "n" }, "spec": { "template": { "spec": spec } } });
            assert_eq!(found(&object), [format!("{kind}/n/a /spec/template/spec")]);
        }
        let pod = json!({ "kind": "Pod", "metadata": { "name": "a" }, "spec": spec });
        assert_eq!(found(&pod), ["Pod/-/a /spec"]);
        let template = json!({ "kind": "PodTemplate", "template": { "spec": spec } });
        assert_eq!(found(&template), ["PodTemplate/-/- /template/spec"]);
        for kind in ["CronJob", "ScheduledThing"] {
            let job = json!({ "kind": kind, "spec": { "jobTemplate": { "spec": { "template": { "spec": spec } } } } });
            assert_eq!(found(&job), [format!("{kind}/-/- /spec/jobTemplate/spec/template/spec")]);
        }
        let list =
            json!({ "kind": "List", "items": [pod, 7, { "kind": "PodList", "items": [{ "spec": spec }] }] });
        assert_eq!(found(&list), ["Pod/-/a /items/0/spec", "Pod/-/- /items/2/items/0/spec"]);
    }

    #[test]
    fn everything_else_holds_none() {
        for other in [
            json!(null),
            json!([{ "kind": "Pod", "spec": {} }]),
            json!({ "kind": "ConfigMap", "data": { "kind": "Pod" } }),
            json!({ "kind": "Service", "spec": { "containers": [] } }),
            json!({ "kind": "Rollout", "spec": { "template": { "spec": {} } } }),
            json!({ "kind": "Rollout", "spec": "template" }),
            json!({ "kind": "List", "items": {} }),
            json!({ "kind": "Pod" }),
        ] {
            assert_eq!(found(&other), Vec::<String>::new(), "{other}");
        }
    }
}
