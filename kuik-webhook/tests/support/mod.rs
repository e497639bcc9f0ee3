//! Reviews as an API server sends them, and what its answers come to.
#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::FutureExt as _;
use http::StatusCode;
use http_body_util::BodyExt as _;
use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{ImagePatterns, StandardPolicy},
};
use kuik_webhook::admission::{
    Admission, AdmissionMetrics, AdmissionService, CACHED_IMAGE_PATH, IgnoredNamespaces, POD_PATH,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

/// The webhook for a proxy at port 7439 that ignores what has `ignored` in it, and its metrics.
pub(crate) struct Webhook {
    pub(crate) service: AdmissionService,
    registry: Registry,
}

/// What was answered to a review.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    pub(crate) patch: Value,
    pub(crate) message: Option<String>,
}

impl Default for Webhook {
    fn default() -> Self {
        let proxy = ProxyAuthority::localhost(7439);
        let patterns = ImagePatterns::new(&["ignored"], &[] as &[&str]).unwrap();
        let policy = Arc::new(StandardPolicy::new(proxy.clone()).with_patterns(patterns));
        let ignored = IgnoredNamespaces::new(["kuik-system".to_owned()]);
        let metrics = AdmissionMetrics::default();
        let mut registry = Registry::with_prefix("kube_image_keeper");
        metrics.register(&mut registry);
        let service = AdmissionService::new(Admission::new(policy, proxy, ignored), metrics);
        Self { service, registry }
    }
}

impl Webhook {
    /// What a review of a pod is answered.
    pub(crate) fn pod(&self, request: Value) -> Answer {
        self.ask(POD_PATH, &review(request))
    }

    /// What a review of a CachedImage is answered.
    pub(crate) fn cached_image(&self, mut request: Value) -> Answer {
        let kind = json!({ "group": "kuik.enix.io", "version": "v1alpha1", "kind": "CachedImage" });
        request["kind"] = kind;
        self.ask(CACHED_IMAGE_PATH, &review(request))
    }

    fn ask(&self, path: &str, review: &Value) -> Answer {
        let response = self.service.answer(path, review.to_string().as_bytes());
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        Answer::read(&body)
    }

    /// The pod that comes of making `pod`.
    pub(crate) fn create(&self, pod: &Value) -> Value {
        self.pod(json!({ "operation": "CREATE", "object": pod })).applied_to(pod)
    }

    /// The pod that comes of making `new` of `old`.
    pub(crate) fn update(&self, old: &Value, new: &Value) -> Value {
        self.pod(json!({ "operation": "UPDATE", "object": new, "oldObject": old })).applied_to(new)
    }

    /// The metrics' lines that have `part` in them.
    pub(crate) fn metrics(&self, part: &str) -> Vec<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(part));
        lines.map(str::to_owned).collect()
    }
}

impl Answer {
    /// Reads a whole review with its response, whose frame is checked.
    pub(crate) fn read(body: &[u8]) -> Self {
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

    /// What becomes of `object`.
    pub(crate) fn applied_to(&self, object: &Value) -> Value {
        assert!(self.allowed);
        let mut object = object.clone();
        let patch: json_patch::Patch = serde_json::from_value(self.patch.clone()).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
        object
    }
}

/// A review with `request`, and in it what every one has.
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

/// A pod as it is after the API server's defaults, of containers that have these images.
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
