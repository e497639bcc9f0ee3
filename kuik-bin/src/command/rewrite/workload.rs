//! Finds what holds a pod spec in a document: pods, what has a pod template, and lists of these.
//!
//! Kinds that this build has never heard of are found by their shape (an Argo Rollout, a Knative Service).

use std::fmt;

use kuik_webhook::pod;
use serde_json::Value;

/// An object that holds a pod spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity<'a> {
    pub(super) kind: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: Option<&'a str>,
}

/// A pod spec, whose it is, and the JSON pointer to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workload<'a> {
    pub(super) of: Identity<'a>,
    pub(super) pod_spec: &'a Value,
    pub(super) pointer: String,
    /// Whether the pod's label says that it wants to be left alone.
    pub(super) opts_out: bool,
}

/// Where the kinds of Kubernetes keep their pod specs, so that a malformed one is reported rather than passed over.
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

/// Every pod spec of a document, in its order.
pub(super) fn workloads(document: &Value) -> Vec<Workload<'_>> {
    let mut found = Vec::new();
    collect(document, "", "", &mut found);
    found
}

/// `implied` is the kind of an object that does not say it: the API server leaves it out inside a `PodList`.
// Recursion is as deep as lists of lists are, which the depth of a value bounds.
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
        // The labels of the pod, which stand beside its spec; those of a Deployment are not its pods'.
        let labels =
            at.strip_suffix("/spec").and_then(|pod| object.pointer(&format!("{pod}/metadata/labels")));
        let opts_out = labels.is_some_and(pod::opts_out);
        found.push(Workload { of, pod_spec, pointer: format!("{base}{at}"), opts_out });
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
