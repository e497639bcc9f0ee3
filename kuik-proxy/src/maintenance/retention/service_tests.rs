//! Tests of the endpoint of retention documents.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;

use http_body_util::Full;
use kuik_core::{
    reference::RepositoryName,
    retention::{ImageRetention, RetentionDocument},
};
use tower::{Layer as _, ServiceExt as _};

use super::{
    super::{RetentionOptions, fallible_store::FallibleStore},
    *,
};

/// An endpoint in front of a registry that accepts everything with status 202.
async fn send(
    index: &RetentionIndex,
    method: &str,
    path: &str,
    cluster: Option<&str>,
    body: impl Into<Bytes>,
) -> Response<ProxyBody> {
    let registry = tower::service_fn(async |_: Request<Full<Bytes>>| {
        let mut response = Response::new(ProxyBody::empty());
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok::<_, Infallible>(response)
    });
    let mut request = Request::builder().method(method).uri(path);
    if let Some(cluster) = cluster {
        request = request.header(CLUSTER_HEADER, cluster);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    RetentionLayer::new(index.clone(), Names::Local).layer(registry).oneshot(request).await.unwrap()
}

async fn status(index: &RetentionIndex, method: &str, path: &str, body: impl Into<Bytes>) -> u16 {
    send(index, method, path, None, body).await.status().as_u16()
}

fn document(state: ImageRetention) -> Bytes {
    let mut document = RetentionDocument::default();
    document.insert(&RepositoryName::local("app").unwrap(), &TagOrDigest::Tag("v1".parse().unwrap()), state);
    document.to_json()
}

async fn index(store: &FallibleStore) -> RetentionIndex {
    let index = RetentionIndex::new(Arc::new(store.clone()), Default::default(), Default::default());
    index.load().await.unwrap();
    index
}

#[tokio::test]
async fn endpoint_stores_and_serves_documents_and_refuses_bad_requests() {
    let index = index(&FallibleStore::default()).await;
    let (path, text) = ("/kuik/v1/retention/a", document(ImageRetention::in_use()));
    assert_eq!(status(&index, "HEAD", path, "").await, 404);
    assert_eq!(status(&index, "PUT", path, text.clone()).await, 204);
    let head = send(&index, "HEAD", path, None, "").await;
    assert_eq!(head.headers()["etag"], kuik_core::retention::etag(&text));
    let get = send(&index, "GET", path, None, "").await;
    assert_eq!(get.into_body().collect().await.unwrap().to_bytes(), text);
    for (method, path, body, expected) in [
        ("PUT", "/kuik/v1/retention/a", Bytes::from_static(b"{}"), 400),
        ("PUT", "/kuik/v1/retention/a", vec![b' '; MAX_DOCUMENT_BYTES + 1].into(), 413),
        ("PUT", "/kuik/v1/retention/", text.clone(), 400),
        ("PUT", "/kuik/v1/retention/..", text.clone(), 400),
        ("PUT", "/kuik/v1/retention/a/b", text.clone(), 400),
        ("POST", "/kuik/v1/retention/a", text.clone(), 405),
        ("PUT", "/v2/app/manifests/v1", text, 202),
    ] {
        assert_eq!(status(&index, method, path, body).await, expected, "{method} {path}");
    }
    assert_eq!(status(&index, "DELETE", path, "").await, 204);
    assert_eq!(status(&index, "DELETE", path, "").await, 204);
    assert_eq!(status(&index, "GET", path, "").await, 404);
}

#[tokio::test]
async fn refused_write_is_retryable_and_the_earlier_document_stays_in_force() {
    let store = FallibleStore::default();
    let index = index(&store).await;
    let path = "/kuik/v1/retention/a";
    let (before, after) = (document(ImageRetention::in_use()), document(ImageRetention::unused(Some(1))));
    assert_eq!(status(&index, "PUT", path, before.clone()).await, 204);
    store.set_failing(true);
    let refused = send(&index, "PUT", path, None, after.clone()).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(status(&index, "DELETE", path, "").await, 503);
    let head = send(&index, "HEAD", path, None, "").await;
    assert_eq!(head.headers()["etag"], kuik_core::retention::etag(&before));
    store.set_failing(false);
    assert_eq!(status(&index, "PUT", path, after).await, 204);
}

#[tokio::test]
async fn tag_is_deleted_unless_another_cluster_has_it() {
    let index = index(&FallibleStore::default()).await;
    assert_eq!(status(&index, "PUT", "/kuik/v1/retention/a", document(ImageRetention::in_use())).await, 204);
    let digest = kuik_core::content::Digest::sha256(b"x");
    for (method, path, cluster, expected) in [
        ("DELETE", "/v2/app/manifests/v1".to_owned(), Some("a"), 202),
        ("DELETE", "/v2/app/manifests/v1".to_owned(), Some("b"), 409),
        ("DELETE", "/v2/app/manifests/v2".to_owned(), Some("b"), 202),
        ("DELETE", "/v2/app/manifests/v1".to_owned(), None, 202),
        ("DELETE", "/v2/app/manifests/v1".to_owned(), Some("Not an ID"), 400),
        ("DELETE", format!("/v2/app/manifests/{digest}"), Some("b"), 202),
        ("GET", "/v2/app/manifests/v1".to_owned(), Some("b"), 202),
    ] {
        let response = send(&index, method, &path, cluster, "").await;
        assert_eq!(response.status(), expected, "{method} {path} {cluster:?}");
    }
}

/// The other cluster reports to another process on the same store.
#[tokio::test]
async fn tag_that_was_reported_to_another_process_is_not_deleted() {
    let store = FallibleStore::default();
    let shared = || {
        let options = RetentionOptions { is_shared: true, ..RetentionOptions::default() };
        RetentionIndex::new(Arc::new(store.clone()), options, Default::default())
    };
    let (one, other) = (shared(), shared());
    one.load().await.unwrap();
    other.load().await.unwrap();
    let in_use = document(ImageRetention::in_use());
    assert_eq!(status(&other, "PUT", "/kuik/v1/retention/b", in_use).await, 204);
    let delete = async || send(&one, "DELETE", "/v2/app/manifests/v1", Some("a"), "").await;
    assert_eq!(delete().await.status(), 409);
    store.set_failing(true);
    let unknown = delete().await;
    assert_eq!(unknown.status(), 503, "it is unknown whether the tag is needed");
    assert!(unknown.headers().contains_key(header::RETRY_AFTER));
    store.set_failing(false);
    assert_eq!(status(&other, "DELETE", "/kuik/v1/retention/b", "").await, 204);
    assert_eq!(delete().await.status(), 202);
}
