//! Shared helpers: a cluster with our resources, its pods, and a record of writes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::needless_pass_by_value,
    dead_code,
    reason = "a test may fail, and not every test needs everything"
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use kube_client::{Api, Client, api::PostParams, client::Body};
use kube_core::CustomResourceExt as _;
use kuik_core::{
    controller::pods::PodRules,
    crd::{CachedImage, CustomResourceDefinition, Repository},
    reference::ProxyAuthority,
    rewrite::{Rewriter, StandardPolicy},
};
use kuik_testkit::real::ApiServer;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// An API server with our resources and the namespaces `shop` and `bank`.
pub(crate) async fn cluster() -> (ApiServer, Client) {
    let server = ApiServer::start().await.unwrap();
    let client = server.admin().client().await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in [CachedImage::crd(), Repository::crd()] {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
    for namespace in ["shop", "bank"] {
        create(
            &client,
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
        )
        .await;
    }
    // Established resources are served after a short delay.
    eventually("our resources are served", async || {
        Api::<CachedImage>::all(client.clone()).list(&Default::default()).await.ok()?;
        Api::<Repository>::all(client.clone()).list(&Default::default()).await.ok()
    })
    .await;
    (server, client)
}

/// Returns the rules of a webhook with default settings.
pub(crate) fn rules() -> PodRules {
    PodRules::new(Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new()))
}

/// Creates an object of any kind of the core API group.
pub(crate) async fn create(client: &Client, object: Value) {
    let namespace = object["metadata"]["namespace"].as_str();
    let (kind, post) = (object["kind"].as_str().unwrap(), PostParams::default());
    macro_rules! create {
        ($type:ty) => {{
            let api: Api<$type> = namespace.map_or_else(
                || panic!("{kind} needs a namespace"),
                |name| Api::namespaced(client.clone(), name),
            );
            api.create(&post, &serde_json::from_value(object.clone()).unwrap()).await.unwrap();
        }};
    }
    match kind {
        "Pod" => create!(Pod),
        "Secret" => create!(k8s_openapi::api::core::v1::Secret),
        "ServiceAccount" => create!(k8s_openapi::api::core::v1::ServiceAccount),
        "Namespace" => {
            let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
            api.create(&post, &serde_json::from_value(object).unwrap()).await.unwrap();
        }
        other => panic!("no {other} is needed so far"),
    }
}

/// Returns a pod of the namespace with one container per image, changed by `with`.
pub(crate) fn pod(namespace: &str, name: &str, images: &[&str], with: Value) -> Value {
    let container = |(index, image): (usize, &&str)| json!({ "name": format!("c{index}"), "image": image, "imagePullPolicy": "IfNotPresent" });
    let containers: Vec<_> = images.iter().enumerate().map(container).collect();
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "containers": containers }
    });
    for part in ["metadata", "spec"] {
        for (key, value) in with.get(part).and_then(Value::as_object).into_iter().flatten() {
            pod[part][key] = value.clone();
        }
    }
    pod
}

/// Deletes a pod at once, as a node does after stopping it.
pub(crate) async fn delete_pod(client: &Client, namespace: &str, name: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let now = kube_client::api::DeleteParams::default().grace_period(0);
    api.delete(name, &now).await.unwrap();
}

/// Returns the names of all CachedImages.
pub(crate) async fn cached_images(client: &Client) -> Vec<String> {
    let list = Api::<CachedImage>::all(client.clone()).list(&Default::default()).await.unwrap();
    let mut names: Vec<_> = list.iter().map(kube_client::ResourceExt::name_any).collect();
    names.sort();
    names
}

/// Polls until there is an answer: another process offers nothing to await.
pub(crate) async fn eventually<T>(what: &str, mut answer: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = answer().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Write requests, in order: `POST /api/v1/…`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes(Arc<Mutex<Vec<String>>>);

impl Writes {
    /// Returns `client` with its writes recorded.
    pub(crate) fn of(&self, client: &Client) -> Client {
        let (writes, inner) = (self.clone(), client.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            if request.method() != Method::GET {
                let line = format!("{} {}", request.method(), request.uri().path());
                writes.0.lock().unwrap().push(line);
            }
            let inner = inner.clone();
            async move { inner.send(request).await }
        });
        Client::new(service, client.default_namespace())
    }

    /// Returns the writes so far, without events.
    pub(crate) fn list(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|line| !line.ends_with("/events")).cloned().collect()
    }
}
