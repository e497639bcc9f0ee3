//! Slim pod objects: only the fields that concern images.
//!
//! Pods are decoded directly into this type, so that a full pod of many kilobytes is never held in memory. Every field
//! may be absent or null.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;

use crate::rewrite::{Placement, Toleration, original_image_annotation, original_init_image_annotation};

/// A pod reduced to the fields that concern images.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Wire")]
pub struct SlimPod {
    /// Name, namespace and version only.
    pub metadata: ObjectMeta,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// All its images.
    pub images: Vec<PodImage>,
    /// Its own pull secrets, in order of use.
    pub pull_secrets: Vec<String>,
    /// Its ServiceAccount.
    pub service_account: String,
    /// Its requirements on the node.
    pub placement: Placement,
}

/// An image of a pod: of a container of any kind, or of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodImage {
    /// The name of the container or of the volume.
    pub name: String,
    /// The current image.
    pub image: String,
    /// The image before rewriting, from the pod's annotation.
    pub original: Option<String>,
    /// The pull policy, if set.
    pub pull_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: Option<WireMeta>,
    spec: Option<WireSpec>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireSpec {
    containers: Option<Vec<WireContainer>>,
    init_containers: Option<Vec<WireContainer>>,
    ephemeral_containers: Option<Vec<WireContainer>>,
    volumes: Option<Vec<WireVolume>>,
    image_pull_secrets: Option<Vec<WireName>>,
    service_account_name: Option<String>,
    priority_class_name: Option<String>,
    host_network: Option<bool>,
    os: Option<WireName>,
    node_selector: Option<BTreeMap<String, String>>,
    tolerations: Option<Vec<WireToleration>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireToleration {
    key: Option<String>,
    operator: Option<String>,
    effect: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireContainer {
    name: Option<String>,
    image: Option<String>,
    image_pull_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireVolume {
    name: Option<String>,
    image: Option<WireImageVolume>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireImageVolume {
    reference: Option<String>,
    pull_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireName {
    name: Option<String>,
}

impl From<Wire> for SlimPod {
    fn from(Wire { metadata, spec }: Wire) -> Self {
        let (metadata, spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
        let labels = metadata.labels.unwrap_or_default();
        let placement =
            labels.keys().fold(spec.placement(), |placement, label| placement.with_pod_label(label));
        let annotations = metadata.annotations.unwrap_or_default();
        let mut images = Vec::new();
        let groups = [
            (spec.init_containers, original_init_image_annotation as fn(&str) -> String),
            (spec.containers, original_image_annotation),
            (spec.ephemeral_containers, original_image_annotation),
        ];
        for (containers, annotation) in groups {
            let containers = containers.into_iter().flatten();
            images.extend(containers.filter_map(|container| container.image(&annotations, annotation)));
        }
        images.extend(spec.volumes.into_iter().flatten().filter_map(WireVolume::image));
        images.shrink_to_fit();
        let WireMeta { name, namespace, uid, resource_version, .. } = metadata;
        Self {
            metadata: ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() },
            labels,
            images,
            pull_secrets: spec.image_pull_secrets.into_iter().flatten().filter_map(WireName::some).collect(),
            service_account: spec.service_account_name.unwrap_or_default(),
            placement,
        }
    }
}

impl WireSpec {
    fn placement(&self) -> Placement {
        let os = self.os.as_ref().and_then(|os| os.name.as_deref());
        let placement = Placement::default()
            .with_priority_class(self.priority_class_name.as_deref().unwrap_or_default())
            .with_host_network(self.host_network.unwrap_or_default())
            .with_os(os.unwrap_or_default());
        let node_labels = self.node_selector.iter().flatten();
        let placement =
            node_labels.fold(placement, |placement, (key, value)| placement.with_node_label(key, value));
        let tolerations = self.tolerations.iter().flatten().map(WireToleration::borrowed);
        tolerations.fold(placement, Placement::with_toleration)
    }
}

impl WireToleration {
    fn borrowed(&self) -> Toleration<'_> {
        Toleration {
            key: self.key.as_deref().unwrap_or_default(),
            operator: self.operator.as_deref().unwrap_or_default(),
            effect: self.effect.as_deref().unwrap_or_default(),
        }
    }
}

impl WireContainer {
    fn image(
        self,
        annotations: &BTreeMap<String, String>,
        annotation: fn(&str) -> String,
    ) -> Option<PodImage> {
        let image = self.image.filter(|image| !image.is_empty())?;
        let name = self.name.unwrap_or_default();
        let original =
            if annotations.is_empty() { None } else { annotations.get(&annotation(&name)).cloned() };
        Some(PodImage { name, image, original, pull_policy: self.image_pull_policy })
    }
}

impl WireVolume {
    fn image(self) -> Option<PodImage> {
        let WireImageVolume { reference, pull_policy } = self.image?;
        let image = reference.filter(|image| !image.is_empty())?;
        Some(PodImage { name: self.name.unwrap_or_default(), image, original: None, pull_policy })
    }
}

impl WireName {
    fn some(self) -> Option<String> {
        self.name.filter(|name| !name.is_empty())
    }
}

/// Watched as the API's Pod.
impl kube_core::Resource for SlimPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn slim_pod_keeps_all_images_and_nothing_else() {
        let pod: SlimPod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "labels": { "app": "web" },
                "annotations": {
                    "original-image-main": "nginx:1.25", "original-init-image-setup": "busybox:1",
                    "original-image-debug": "tools:1", "kubectl.kubernetes.io/last-applied-configuration": "{}"
                },
                "managedFields": [{ "manager": "kubectl" }]
            },
            "spec": {
                "initContainers": [{ "name": "setup", "image": "localhost:7439/busybox:1" }],
                "containers": [{ "name": "main", "image": "localhost:7439/nginx:1.25", "imagePullPolicy": "Never" }],
                "ephemeralContainers": [{ "name": "debug", "image": "localhost:7439/tools:1" }],
                "volumes": [{ "name": "tmp", "emptyDir": {} },
                            { "name": "model", "image": { "reference": "m:1", "pullPolicy": "Always" } }],
                "imagePullSecrets": [{ "name": "a" }, { "name": "b" }],
                "serviceAccountName": "robot"
            },
            "status": { "phase": "Running" }
        }))
        .unwrap();
        let images: Vec<_> = pod
            .images
            .iter()
            .map(|i| (i.name.as_str(), i.image.as_str(), i.original.as_deref(), i.pull_policy.as_deref()))
            .collect();
        assert_eq!(
            images,
            [
                ("setup", "localhost:7439/busybox:1", Some("busybox:1"), None),
                ("main", "localhost:7439/nginx:1.25", Some("nginx:1.25"), Some("Never")),
                ("debug", "localhost:7439/tools:1", Some("tools:1"), None),
                ("model", "m:1", None, Some("Always")),
            ]
        );
        assert_eq!((pod.pull_secrets, pod.service_account), (vec!["a".into(), "b".into()], "robot".into()));
        assert_eq!(pod.metadata.name.as_deref(), Some("web"));
        assert!(pod.metadata.annotations.is_none() && pod.metadata.managed_fields.is_none());
    }

    #[test]
    fn slim_pod_keeps_its_placement() {
        let placement = |pod| serde_json::from_value::<SlimPod>(pod).unwrap().placement;
        let everywhere = json!([{ "operator": "Exists", "effect": "NoSchedule" }]);
        let cni = json!({ "spec": { "hostNetwork": true, "tolerations": everywhere } });
        assert!(placement(cni).is_node_critical());
        assert!(
            placement(json!({ "spec": { "priorityClassName": "system-node-critical" } })).is_node_critical()
        );
        assert!(placement(json!({ "spec": { "os": { "name": "windows" } } })).is_windows());
        assert!(
            placement(json!({ "spec": { "nodeSelector": { "kubernetes.io/os": "windows" } } })).is_windows()
        );
        let fargate = json!({ "metadata": { "labels": { "eks.amazonaws.com/fargate-profile": "default" } } });
        assert!(placement(fargate).is_virtual());
        assert_eq!(placement(json!({ "spec": { "os": null, "tolerations": null } })), Placement::default());
    }

    #[test]
    fn absent_and_null_fields_are_skipped() {
        for pod in [
            json!({}),
            json!({ "metadata": null, "spec": null }),
            json!({ "metadata": { "name": "x", "labels": null }, "spec": { "containers": null, "volumes": [{ "image": null }] } }),
            json!({ "spec": { "containers": [{ "image": "" }, {}], "volumes": [{ "image": {} }], "imagePullSecrets": [{}] } }),
        ] {
            let slim: SlimPod = serde_json::from_value(pod.clone()).unwrap();
            assert!(slim.images.is_empty() && slim.pull_secrets.is_empty(), "{pod}");
        }
    }
}
