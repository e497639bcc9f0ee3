//! Pods: specification and status.

use serde_json::{Value, json};

use super::{PATIENCE, Scenario, json as get, kubectl};

/// Returns a pod that sleeps, as a base for changes of spec and metadata.
pub(crate) fn pod(namespace: &str, name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [container("main", image)],
        },
    })
}

/// `IfNotPresent`, so that what has the tag `latest`, or none, is rewritten as well.
pub(crate) fn container(name: &str, image: &str) -> Value {
    json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent"})
}

impl Scenario {
    /// A pod that sleeps, in the scenario's namespace.
    pub(crate) fn pod(&self, name: &str, image: &str) -> Value {
        pod(&self.namespace, name, image)
    }

    /// Creates a pod, and waits until it is ready; returns it as the API server has it then.
    pub(crate) async fn start(&self, pod: &Value) -> Value {
        super::apply(std::slice::from_ref(pod)).await.unwrap();
        self.ready(pod["metadata"]["name"].as_str().unwrap()).await
    }

    /// Waits until a pod is ready.
    pub(crate) async fn ready(&self, name: &str) -> Value {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        let named = format!("pod/{name}");
        kubectl(&["wait", "--for=condition=Ready", &limit, "--namespace", &self.namespace, &named])
            .await
            .unwrap();
        get(&["--namespace", &self.namespace, &named]).await.unwrap()
    }

    /// Deletes a pod, and waits until it is gone.
    pub(crate) async fn delete(&self, name: &str) {
        kubectl(&["delete", "pod", name, "--namespace", &self.namespace, "--grace-period=0", "--force"])
            .await
            .unwrap();
    }

    /// Returns the content of a container's file `/mark`.
    pub(crate) async fn mark(&self, pod: &str, container: &str) -> String {
        let exec =
            ["exec", "--namespace", &self.namespace, pod, "--container", container, "--", "cat", "/mark"];
        kubectl(&exec).await.unwrap()
    }
}

/// The image of a container, wherever in the pod it is.
pub(crate) fn image_of<'a>(pod: &'a Value, container: &str) -> &'a str {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let mut all = lists.iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    all.find(|it| it["name"] == container).unwrap_or_else(|| panic!("there is no {container} in {pod:#}"))["image"]
        .as_str()
        .unwrap()
}

/// Returns the rewritten form of an upstream's image.
pub(crate) fn rewritten(image: &str) -> String {
    let (host, name) = image.split_once('/').unwrap();
    format!("localhost:7439/{}/{name}", host.replace(':', "__"))
}
