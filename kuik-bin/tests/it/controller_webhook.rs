//! The webhook of `kuik-controller` without an API server: it answers reviews, and both stop together.

use std::{fs, net::SocketAddr};

use kuik_testkit::real::free_address;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Kuik, get, over_tls, pod};

/// Files of a certificate for `localhost`, and a kubeconfig of a cluster whose API server is down.
struct Files {
    folder: tempfile::TempDir,
    root: CertificateDer<'static>,
}

impl Files {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let unreachable = free_address().await.unwrap();
        let cluster = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nusers: [{{name: c, user: {{}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'http://{unreachable}'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n"
        );
        let files = [
            ("tls.crt", made.cert.pem()),
            ("tls.key", made.signing_key.serialize_pem()),
            ("kubeconfig", cluster),
        ];
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        Self { folder, root: made.cert.der().clone() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// The controllers, with the webhook at this address.
    async fn controller(&self, webhook: SocketAddr) -> Kuik {
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| self.path(name));
        let listens = webhook.to_string();
        let files = ["--tls-cert-file", &certificate, "--tls-private-key-file", &key];
        let arguments = [&["--leader-elect", "--webhook-bind-address", &listens][..], &files].concat();
        Kuik::controller(self.path("kubeconfig").as_ref(), &arguments).await
    }
}

#[tokio::test]
async fn process_exits_if_the_webhook_cannot_listen() {
    let files = Files::new().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut controller = files.controller(taken.local_addr().unwrap()).await;
    assert_eq!(controller.ended().await.code(), Some(1), "{}", controller.log());
}

#[tokio::test]
async fn reviews_are_served_without_the_api_server_and_finish_before_exit() {
    let files = Files::new().await;
    let webhook = free_address().await.unwrap();
    let mut controller = files.controller(webhook).await;

    controller.logs(" serving ").await;
    assert_eq!(get(controller.address(), "/healthz").await.status, 200);
    let ready = get(controller.address(), "/readyz").await;
    assert_eq!(ready.status, 503);
    let text = String::from_utf8(ready.body).unwrap();
    assert!(text.starts_with("API server: ") && !text.contains("certificate"), "{text}");

    // Half a review, for which its answer is asked: it is being read when the process is to stop.
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE",
            "namespace": "shop", "object": pod("web", "nginx:1.25"),
        },
    })
    .to_string();
    let (first, rest) = review.split_at(review.len() / 2);
    let head = format!(
        "POST /mutate-core-v1-pod HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n{first}",
        review.len()
    );
    let mut stream = over_tls(webhook, files.root.clone()).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = [0; 25];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    controller.terminate();
    controller.logs("stopping after running requests finish").await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The process closes an idle connection without a TLS close notification.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("JSONPatch"), "{answer}");
    assert!(controller.ended().await.success(), "{}", controller.log());
}
