//! Webhook and controllers in one process, in front of a real API server: pods are rewritten, and their images kept.

use std::fs;

use crate::support::{
    Kuik, api_server, documented, eventually, exposed, get, is_cached, name_of_app, object, pod, proxied,
    pull_with_skopeo, push, webhook_configuration,
};
use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, RegistryOptions, free_address};
use serde_json::{Value, json};

const CONFIGURATION: &str = "kube-image-keeper-webhook";

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
    // API servers receive the caBundle through a watch.
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
    controller.logs("secret kuik-system/kuik-registry-token has no key \"token\"").await;
    let name = ["cachedimages", "docker.io-library-nginx-1.25"];
    assert!(object(admin, &name).await.is_none());
    admin.kubectl(["delete", "secret", "kuik-registry-token", "--namespace=kuik-system"]).await.unwrap();
    eventually("its image is known", async || object(admin, &name).await.is_some()).await;
}
