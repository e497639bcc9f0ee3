//! An operator's own server that also is kuik's webhook: the admission service is a route among others of axum's, and any
//! server of tower services can have it so.
//!
//! API servers speak TLS alone: put this behind what ends it for your operator already.
//!
//! `cargo run -p kuik-webhook --features admission --example own_server`
use std::{error::Error, sync::Arc};

use axum::{Router, routing::get};
use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{ImagePatterns, StandardPolicy},
};
use kuik_webhook::admission::{
    Admission, AdmissionMetrics, AdmissionService, CACHED_IMAGE_PATH, IgnoredNamespaces, POD_PATH,
};
use tokio::net::TcpListener;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Images of pods lead to a proxy on port 7439 of their node, but for those of this registry.
fn webhook() -> Outcome<AdmissionService> {
    let proxy = ProxyAuthority::localhost(7439);
    let ignored = ImagePatterns::new(&["^registry\\.internal/"], &[] as &[&str])?;
    let policy = StandardPolicy::new(proxy.clone()).with_patterns(ignored);
    let namespaces = IgnoredNamespaces::new(["kube-system".to_owned()]);
    let admission = Admission::new(Arc::new(policy), proxy, namespaces);
    Ok(AdmissionService::new(admission, AdmissionMetrics::default()))
}

pub(crate) async fn serve(listener: TcpListener) -> Outcome<()> {
    let webhook = webhook()?;
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route_service(POD_PATH, webhook.clone())
        .route_service(CACHED_IMAGE_PATH, webhook);
    Ok(axum::serve(listener, routes).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    serve(TcpListener::bind("127.0.0.1:8080").await?).await
}
