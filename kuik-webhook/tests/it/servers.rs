//! The service in hyper and axum, over real connections, and its errors for requests that are not reviews.
#![cfg(feature = "admission")]

use std::net::SocketAddr;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{Rewriter, StandardPolicy},
};
use kuik_webhook::admission::{AdmissionOptions, AdmissionService, CACHED_IMAGE_PATH, POD_PATH};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tower::ServiceExt as _;

use crate::support::{ReviewResponse, Webhook, pod, review};

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn in_hyper(service: AdmissionService) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn in_axum(service: AdmissionService) -> SocketAddr {
    let (listener, address) = listener().await;
    let router = axum::Router::new()
        .route_service(POD_PATH, service.clone())
        .route_service(CACHED_IMAGE_PATH, service);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn post(address: SocketAddr, review: &Value) -> (StatusCode, Bytes) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("{POD_PATH}?timeout=10s"))
        .header(header::HOST, "webhook")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(review.to_string()))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn service_can_be_mounted_in_hyper_and_axum() {
    let webhook = Webhook::default();
    let pod = pod(&[("web", "nginx:1.25")]);
    for address in [in_hyper(webhook.service.clone()).await, in_axum(webhook.service.clone()).await] {
        let request = json!({ "operation": "CREATE", "object": pod });
        let (status, body) = post(address, &review(request)).await;
        assert_eq!(status, StatusCode::OK);
        let made = ReviewResponse::parse(&body).applied_to(&pod);
        assert_eq!(made["spec"]["containers"][0]["image"], "localhost:7439/nginx:1.25");
    }
}

#[tokio::test]
async fn service_can_be_mounted_at_other_paths() {
    let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new());
    let options = AdmissionOptions::new(rewriter).with_pod_path("/pods").with_cached_image_path("/images");
    let service = AdmissionService::new(options);
    let text = review(json!({ "operation": "CREATE", "object": pod(&[("web", "nginx:1")]) })).to_string();
    for (path, status) in [("/pods", StatusCode::OK), (POD_PATH, StatusCode::NOT_FOUND)] {
        let mut request = request(whole(text.clone()));
        *request.uri_mut() = path.parse().unwrap();
        let (answered, body) = send(&service, request).await;
        assert_eq!(answered, status, "{body}");
        assert!(status.is_success() || body.contains("/pods and /images"), "{body}");
    }
}

#[tokio::test]
async fn client_disconnect_during_body_does_not_affect_others() {
    let webhook = Webhook::default();
    let address = in_hyper(webhook.service.clone()).await;
    let text = review(json!({ "operation": "CREATE", "object": pod(&[("web", "nginx")]) })).to_string();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {POD_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    let half = text.get(..text.len() / 2).unwrap();
    stream.write_all([head.as_bytes(), half.as_bytes()].concat().as_slice()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    let (status, _) = post(address, &review(json!({ "operation": "CREATE", "object": pod(&[]) }))).await;
    assert_eq!(status, StatusCode::OK);
}

type TestBody =
    Either<Full<Bytes>, StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, String>>>>>;

fn whole(text: impl Into<Bytes>) -> TestBody {
    Either::Left(Full::new(text.into()))
}

/// A body of unknown length, in frames; the last one can be an error.
fn frames(frames: Vec<Result<Bytes, String>>) -> TestBody {
    let frames: Vec<_> = frames.into_iter().map(|frame| frame.map(Frame::data)).collect();
    Either::Right(StreamBody::new(stream::iter(frames)))
}

async fn send(service: &AdmissionService, request: Request<TestBody>) -> (StatusCode, String) {
    let response = service.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn request(body: TestBody) -> Request<TestBody> {
    let request = Request::post(POD_PATH).header(header::CONTENT_TYPE, "application/json; charset=utf-8");
    request.body(body).unwrap()
}

#[tokio::test]
async fn requests_that_are_not_reviews_get_an_error_with_expectation() {
    let webhook = Webhook::default();
    let good = review(json!({ "operation": "CREATE", "object": pod(&[("web", "nginx")]) }));
    let text = good.to_string();
    let truncated = text.get(..text.len() - 10).unwrap().to_owned();
    let mut beta = good.clone();
    beta["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let mut no_request = good.clone();
    no_request["request"] = json!(null);
    let mut other_method = request(whole(text.clone()));
    *other_method.method_mut() = Method::PUT;
    let mut other_path = request(whole(text.clone()));
    *other_path.uri_mut() = "/mutate".parse().unwrap();
    let mut yaml = request(whole(text.clone()));
    yaml.headers_mut().insert(header::CONTENT_TYPE, "application/yaml".parse().unwrap());
    let mut untyped = request(whole(text.clone()));
    untyped.headers_mut().remove(header::CONTENT_TYPE);
    let megabyte = Ok(Bytes::from(vec![b' '; 1 << 20]));
    for (request, status, reason, words) in [
        (request(whole(truncated)), StatusCode::BAD_REQUEST, "malformed", "not an AdmissionReview"),
        (request(whole("")), StatusCode::BAD_REQUEST, "malformed", "not an AdmissionReview"),
        (request(whole(beta.to_string())), StatusCode::BAD_REQUEST, "malformed", "admission.k8s.io/v1beta1"),
        (request(whole(pod(&[]).to_string())), StatusCode::BAD_REQUEST, "malformed", "\"Pod\""),
        (request(whole(no_request.to_string())), StatusCode::BAD_REQUEST, "malformed", "no request"),
        (request(whole(vec![b' '; 10 << 20])), StatusCode::PAYLOAD_TOO_LARGE, "too_large", "8388608 bytes"),
        (request(frames(vec![megabyte; 10])), StatusCode::PAYLOAD_TOO_LARGE, "too_large", "8388608 bytes"),
        (request(frames(vec![Err("cut".into())])), StatusCode::BAD_REQUEST, "truncated", "cut"),
        (other_method, StatusCode::METHOD_NOT_ALLOWED, "method", "POST"),
        (other_path, StatusCode::NOT_FOUND, "path", POD_PATH),
        (yaml, StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", "application/json"),
        (untyped, StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", "application/json"),
    ] {
        let line = format!(r#"outcome="rejected",reason="{reason}""#);
        let before = webhook.metrics(&line);
        let (answered, body) = send(&webhook.service, request).await;
        assert_eq!(answered, status, "{body}");
        assert!(body.contains(words), "{words}: {body}");
        assert_ne!(webhook.metrics(&line), before, "{reason} is not counted");
    }
    let pieces = text.as_bytes().chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    assert_eq!(send(&webhook.service, request(frames(pieces))).await.0, StatusCode::OK);
}

/// A body that never sends a frame.
fn silent() -> StreamBody<stream::Pending<Result<Frame<Bytes>, String>>> {
    StreamBody::new(stream::pending())
}

#[tokio::test(start_paused = true)]
async fn stalled_bodies_time_out_and_do_not_delay_small_ones() {
    let webhook = Webhook::default();
    let slow = (0..50).map(|_| {
        let request = Request::post(POD_PATH).header(header::CONTENT_TYPE, "application/json");
        tokio::spawn(webhook.service.clone().oneshot(request.body(silent()).unwrap()))
    });
    let slow: Vec<_> = slow.collect();
    let good = review(json!({ "operation": "CREATE", "object": pod(&[("web", "nginx")]) })).to_string();
    assert_eq!(send(&webhook.service, request(whole(good))).await.0, StatusCode::OK);
    for stalled in slow {
        assert_eq!(stalled.await.unwrap().unwrap().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
