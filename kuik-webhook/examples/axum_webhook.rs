//! kuik's webhook in an axum application, next to a webhook of one's own.
//!
//! The admission service is a tower service, so it is mounted like any other route. Point the `path` of the
//! MutatingWebhookConfiguration to the route. API servers require TLS: put the application behind the TLS termination that
//! it already has.
//!
//! `cargo run -p kuik-webhook --features admission --example axum_webhook`

use std::error::Error;

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{ImagePatterns, InvalidPatterns, Rewriter, StandardPolicy},
};
use kuik_webhook::admission::{AdmissionMetrics, AdmissionOptions, AdmissionService};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The path of kuik's webhook in this application.
const KUIK_PATH: &str = "/webhooks/kuik";

/// kuik's webhook: images are rewritten to a proxy on port 7439 of each node, except those of one registry.
fn kuik_webhook(metrics: AdmissionMetrics) -> Result<AdmissionService, InvalidPatterns> {
    let accept_all: [&str; 0] = [];
    let patterns = ImagePatterns::new(&["^registry\\.internal/"], &accept_all)?;
    let policy = StandardPolicy::new().with_patterns(patterns);
    let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), policy);
    let options = AdmissionOptions::new(rewriter)
        .with_pod_path(KUIK_PATH)
        // Pods of the cache and of this application must start without each other.
        .with_ignored_namespaces(["kuik-system", "my-operator"])
        .with_metrics(metrics);
    Ok(AdmissionService::new(options))
}

/// A webhook of one's own: denies pods without the label `owner`.
async fn require_owner(body: Bytes) -> Response {
    let Ok(review) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, "expected an AdmissionReview").into_response();
    };
    let allowed = review.pointer("/request/object/metadata/labels/owner").is_some();
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review.pointer("/request/uid"),
            "allowed": allowed,
            "status": { "message": "set the label owner" },
        },
    });
    ([(header::CONTENT_TYPE, "application/json")], review.to_string()).into_response()
}

/// All routes of the application.
fn routes() -> Result<Router, InvalidPatterns> {
    let metrics = AdmissionMetrics::default();
    // The application's own metrics registry, which it exposes as it does today.
    let mut registry = Registry::with_prefix("kube_image_keeper");
    metrics.register(&mut registry);
    Ok(Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/webhooks/require-owner", post(require_owner))
        .route_service(KUIK_PATH, kuik_webhook(metrics)?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    Ok(axum::serve(listener, routes()?).await?)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::{KUIK_PATH, Value, header, json, routes};

    /// Sends a review of a new pod to one of the webhooks, and returns its response.
    async fn review(path: &str, pod: Value) -> Result<Value, Box<dyn std::error::Error>> {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "1",
                "kind": { "group": "", "version": "v1", "kind": "Pod" },
                "namespace": "shop",
                "operation": "CREATE",
                "object": pod,
            },
        });
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(review.to_string()))?;
        let response = routes()?.oneshot(request).await?;
        let review: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        Ok(review["response"].clone())
    }

    #[tokio::test]
    async fn both_webhooks_respond() -> Result<(), Box<dyn std::error::Error>> {
        let pod = json!({
            "metadata": { "name": "web" },
            "spec": { "containers": [{ "name": "web", "image": "nginx:1.25", "imagePullPolicy": "IfNotPresent" }] },
        });
        let kuik = review(KUIK_PATH, pod.clone()).await?;
        assert_eq!((&kuik["allowed"], &kuik["patchType"]), (&json!(true), &json!("JSONPatch")));
        let own = review("/webhooks/require-owner", pod).await?;
        assert_eq!(own["allowed"], false);
        Ok(())
    }
}
