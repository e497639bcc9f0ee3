//! Admission reviews over TLS, with a certificate from files, and the metrics of `kuik-webhook`.

use std::fs;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use kuik_testkit::real::free_address;
use serde_json::{Value, json};

use crate::support::{Kuik, documented, exposed, get, over_tls, pod};

const POD_PATH: &str = "/mutate-core-v1-pod";

#[tokio::test]
async fn reviews_are_answered_over_tls_and_the_metrics_are_those_of_the_document() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let [metrics, health] = [free_address().await.unwrap(), free_address().await.unwrap()];
    let (metrics_text, health_text) = (metrics.to_string(), health.to_string());
    let webhook = Kuik::webhook(
        &[
            "--bind-address",
            "127.0.0.1:0",
            "--proxy-port",
            "7439",
            "--ignore-images",
            "^ignored",
            "--metrics-bind-address",
            &metrics_text,
            "--health-probe-bind-address",
            &health_text,
            "--tls-cert-file",
            certificate.to_str().unwrap(),
            "--tls-private-key-file",
            key.to_str().unwrap(),
        ],
        &[],
    )
    .await;
    assert_eq!(get(health, "/readyz").await.status, 200);

    let stream = over_tls(webhook.address(), made.cert.der().clone()).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE",
            "namespace": "shop", "object": pod("web", "nginx:1.25"),
        },
    });
    let request = http::Request::post(POD_PATH)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::from(review.to_string()))
        .unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");

    let text = String::from_utf8(get(metrics, "/metrics").await.body).unwrap();
    let own = ["kube_image_keeper_webhook_", "kube_image_keeper_tls_"];
    assert_eq!(exposed(&text), documented(|name| own.iter().any(|own| name.starts_with(own))));
    assert!(
        text.contains(r#"kube_image_keeper_webhook_images_total{decision="rewritten",reason=""} 1"#),
        "{text}"
    );
}
