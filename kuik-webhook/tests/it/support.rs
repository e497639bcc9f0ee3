//! Admission reviews as an API server sends them, and the objects that result from the responses.
#![allow(dead_code, reason = "each test binary uses a part")]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::FutureExt as _;
use http::StatusCode;
use http_body_util::BodyExt as _;
use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{ImagePatterns, RewritePolicy, Rewriter, StandardPolicy},
};
use kuik_webhook::admission::{
    AdmissionMetrics, AdmissionOptions, AdmissionService, CACHED_IMAGE_PATH, POD_PATH,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

/// A webhook for a proxy on port 7439, and its metrics. By default it ignores images that contain `ignored`.
pub(crate) struct Webhook {
    pub(crate) service: AdmissionService,
    registry: Registry,
}

/// The response of a review.
#[derive(Debug, PartialEq)]
pub(crate) struct ReviewResponse {
    pub(crate) allowed: bool,
    pub(crate) patch: Value,
    pub(crate) message: Option<String>,
}

impl Default for Webhook {
    fn default() -> Self {
        let patterns = ImagePatterns::new(&["ignored"], &[] as &[&str]).unwrap();
        Self::new(StandardPolicy::new().with_patterns(patterns))
    }
}

impl Webhook {
    pub(crate) fn new(policy: impl RewritePolicy) -> Self {
        let metrics = AdmissionMetrics::default();
        let mut registry = Registry::with_prefix("kube_image_keeper");
        metrics.register(&mut registry);
        let options = AdmissionOptions::new(Rewriter::new(ProxyAuthority::localhost(7439), policy))
            .with_ignored_namespaces(["kuik-system"])
            .with_metrics(metrics);
        Self { service: AdmissionService::new(options), registry }
    }

    /// Returns the response of a review of a pod.
    pub(crate) fn pod(&self, request: Value) -> ReviewResponse {
        self.review(POD_PATH, &review(request))
    }

    /// Returns the response of a review of a CachedImage.
    pub(crate) fn cached_image(&self, mut request: Value) -> ReviewResponse {
        let kind = json!({ "group": "kuik.enix.io", "version": "v1alpha1", "kind": "CachedImage" });
        request["kind"] = kind;
        self.review(CACHED_IMAGE_PATH, &review(request))
    }

    fn review(&self, path: &str, review: &Value) -> ReviewResponse {
        let response = self.service.review(path, review.to_string().as_bytes());
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        ReviewResponse::parse(&body)
    }

    /// Returns the pod that results from creating `pod`.
    pub(crate) fn create(&self, pod: &Value) -> Value {
        self.pod(json!({ "operation": "CREATE", "object": pod })).applied_to(pod)
    }

    /// Returns the pod that results from updating `old` to `new`.
    pub(crate) fn update(&self, old: &Value, new: &Value) -> Value {
        self.pod(json!({ "operation": "UPDATE", "object": new, "oldObject": old })).applied_to(new)
    }

    /// Returns the lines of the metrics that contain `part`.
    pub(crate) fn metrics(&self, part: &str) -> Vec<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(part));
        lines.map(str::to_owned).collect()
    }
}

impl ReviewResponse {
    /// Parses a review with its response, and checks its envelope.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let review: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(review["kind"], "AdmissionReview");
        let response = &review["response"];
        assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        let patch = response.get("patch").map(|encoded| {
            assert_eq!(response["patchType"], "JSONPatch");
            let decoded = BASE64_STANDARD.decode(encoded.as_str().unwrap()).unwrap();
            serde_json::from_slice(&decoded).unwrap()
        });
        Self {
            allowed: response["allowed"].as_bool().unwrap(),
            patch: patch.unwrap_or(json!([])),
            message: response.pointer("/status/message").map(|text| text.as_str().unwrap().to_owned()),
        }
    }

    /// Returns `object` with the patch applied.
    pub(crate) fn applied_to(&self, object: &Value) -> Value {
        assert!(self.allowed);
        let mut object = object.clone();
        let patch: json_patch::Patch = serde_json::from_value(self.patch.clone()).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
        object
    }
}

/// Returns a review of `request`, with defaults for the fields that every review has.
pub(crate) fn review(mut request: Value) -> Value {
    let defaults = json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": { "group": "", "version": "v1", "kind": "Pod" },
        "resource": { "group": "", "version": "v1", "resource": "pods" },
        "namespace": "shop",
        "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
        "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        "dryRun": false,
    });
    for (key, value) in defaults.as_object().unwrap() {
        request.as_object_mut().unwrap().entry(key.clone()).or_insert_with(|| value.clone());
    }
    json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request })
}

/// Returns a pod with the API server's defaults, with containers of these names and images.
pub(crate) fn pod(images: &[(&str, &str)]) -> Value {
    let containers: Vec<_> = images
        .iter()
        .map(|(name, image)| {
            json!({ "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "resources": {} })
        })
        .collect();
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": { "name": "web", "namespace": "shop", "labels": { "app": "web" } },
        "spec": { "containers": containers, "restartPolicy": "Always", "fieldOfTomorrow": [1, 2] },
        "status": {},
    })
}
