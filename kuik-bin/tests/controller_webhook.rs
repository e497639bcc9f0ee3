//! The webhook in the process of the controllers: neither waits for the other, both stop together, and one process is all
//! that a pod needs to be rewritten and to have its image kept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod support;

use std::{fs, net::SocketAddr};

use kuik_core::testkit::{
    SampleImage,
    real::{DockerRegistry, RegistryOptions, free_address},
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use support::{
    Kuik, api_server, documented, eventually, exposed, get, is_cached, name_of_app, object, over_tls, pod,
    proxied, pull_with_skopeo, push, webhook_configuration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CONFIGURATION: &str = "kube-image-keeper-webhook";

/// The files of a certificate for `localhost`, and a kubeconfig of a cluster whose API server is away.
struct Files {
    folder: tempfile::TempDir,
    root: CertificateDer<'static>,
}

impl Files {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let nobody = free_address().await.unwrap();
        let cluster = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nusers: [{{name: c, user: {{}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'http://{nobody}'}}}}]\n\
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
async fn where_the_webhook_cannot_listen_the_process_ends() {
    let files = Files::new().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut controller = files.controller(taken.local_addr().unwrap()).await;
    assert_eq!(controller.ended().await.code(), Some(1), "{}", controller.log());
}

#[tokio::test]
async fn reviews_are_answered_while_the_api_server_is_away_and_finished_before_the_end() {
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
    controller.logs("stopping: ").await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The process ends the connection without a word of TLS where it has nothing more to say.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("JSONPatch"), "{answer}");
    assert!(controller.ended().await.success(), "{}", controller.log());
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn one_process_rewrites_a_pod_and_keeps_its_image() {
    let server = api_server().await;
    let admin = server.admin();
    let webhook = free_address().await.unwrap();
    // Of before the first start, and of no use: who finds it can neither read a certificate in it nor write one.
    let wrong = json!({
        "apiVersion": "v1", "kind": "Secret", "immutable": true,
        "metadata": { "name": "kube-image-keeper-webhook-certificate", "namespace": "kuik-system" },
    });
    admin.apply(&wrong.to_string()).await.unwrap();
    let image = SampleImage::small(98);
    let mut docker = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let host = docker.host();
    let source = format!("{host}/team/app:v1");
    push(&image, &source, &[]).await;
    let data = tempfile::tempdir().unwrap();
    let registry = Kuik::open_cache("127.0.0.1:0", data.path(), &host).await;

    let user = server.user("controllers", None).unwrap();
    let (cache, listens) = (registry.host(), webhook.to_string());
    let arguments = [
        "--leader-elect",
        "--proxy-port=7439",
        "--registry-token-secret=",
        "--webhook-bind-address",
        &listens,
    ];
    let mut controller = Kuik::controllers(&user, &cache, &arguments).await;

    // Without a certificate there is no webhook, and images are kept all the same.
    admin.apply(&pod("older", &source).to_string()).await.unwrap();
    let name = name_of_app(&host, "v1");
    eventually("the image is cached", async || is_cached(admin, &name).await).await;
    let ready = get(controller.address(), "/readyz").await;
    let text = String::from_utf8(ready.body).unwrap();
    assert!(ready.status == 503 && text.starts_with("certificate: "), "{text}");

    let secret = ["secret", "kube-image-keeper-webhook-certificate", "--namespace=kuik-system"];
    admin.kubectl([&["delete"][..], &secret].concat()).await.unwrap();
    admin.apply(&webhook_configuration(CONFIGURATION, CONFIGURATION, webhook.port())).await.unwrap();
    eventually("it is ready", async || get(controller.address(), "/readyz").await.status == 200).await;
    // API servers hear of the authority by a watch.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod.json");
    fs::write(&file, pod("web", &source).to_string()).unwrap();
    let create = ["create", "--output=json", "--filename", file.to_str().unwrap()];
    let made = async |more: &[&str]| -> Value {
        let made = admin.kubectl([&create[..], more].concat()).await.unwrap();
        serde_json::from_str(&made).unwrap()
    };
    let through = format!("localhost:7439/{}:v1", proxied(&host, "team/app"));
    eventually("pods are rewritten", async || {
        made(&["--dry-run=server"]).await["spec"]["containers"][0]["image"] == *through
    })
    .await;
    assert_eq!(made(&[]).await["spec"]["containers"][0]["image"], *through);
    eventually("both pods use one image", async || {
        let image = object(admin, &["cachedimages", &name]).await.unwrap();
        image["status"]["usedBy"]["count"] == 2
    })
    .await;
    docker.stop().await.unwrap();
    pull_with_skopeo(&format!("{cache}/{}:v1", proxied(&host, "team/app")), &image).await;

    let text = String::from_utf8(get(controller.address(), "/metrics").await.body).unwrap();
    let own = ["kube_image_keeper_controller_", "kube_image_keeper_webhook_", "kube_image_keeper_tls_"];
    let build = "kube_image_keeper_webhook_build_info";
    let expected = documented(|name| own.iter().any(|own| name.starts_with(own)) && name != build);
    assert_eq!(exposed(&text), expected);
    assert!(!controller.log().contains("forbidden"), "{}", controller.log());
    controller.terminate();
    assert!(controller.ended().await.success(), "{}", controller.log());
    let lease = object(admin, &["lease", "kuik-controller", "--namespace=kuik-system"]).await.unwrap();
    assert_eq!(
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default(),
        "",
        "the next one need not wait"
    );
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn pods_are_rewritten_while_the_controllers_have_no_token() {
    let server = api_server().await;
    let admin = server.admin();
    let webhook = free_address().await.unwrap();
    admin.apply(&webhook_configuration(CONFIGURATION, CONFIGURATION, webhook.port())).await.unwrap();
    let wrong = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "kuik-registry-token", "namespace": "kuik-system" }, "stringData": { "other": "key" },
    });
    admin.apply(&wrong.to_string()).await.unwrap();

    let user = server.user("controllers", None).unwrap();
    let (cache, listens) = (free_address().await.unwrap().to_string(), webhook.to_string());
    let controller = Kuik::controllers(&user, &cache, &["--webhook-bind-address", &listens]).await;
    eventually("it is ready", async || get(controller.address(), "/readyz").await.status == 200).await;

    let web = pod("web", "nginx:1.25").to_string();
    eventually("a pod is rewritten", async || {
        let asked =
            ["delete", "pod", "web", "--namespace=shop", "--ignore-not-found", "--grace-period=0", "--force"];
        admin.kubectl(asked).await.unwrap();
        admin.apply(&web).await.unwrap();
        let made = object(admin, &["pod", "web", "--namespace=shop"]).await.unwrap();
        made["spec"]["containers"][0]["image"] == "localhost:8082/nginx:1.25"
    })
    .await;
    controller.logs("the Secret kuik-system/kuik-registry-token has no \"token\" in it").await;
    let name = ["cachedimages", "docker.io-library-nginx-1.25"];
    assert!(object(admin, &name).await.is_none());
    admin.kubectl(["delete", "secret", "kuik-registry-token", "--namespace=kuik-system"]).await.unwrap();
    eventually("its image is known", async || object(admin, &name).await.is_some()).await;
}
