//! `kuik-controller` as it is run: a real API server with the rights of `docs/rbac.yaml` and no others, `kuik-registry` as
//! the cache, and Docker's registry, which is stopped as soon as the image has to be in the cache.

use std::{fs, path::Path};

use crate::support::{
    Kuik, api_server, documented, eventually, exposed, get, is_cached, name_of_app, object, pod, proxied,
    pull_with_skopeo, push, within,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kuik_testkit::{
    SampleImage,
    real::{ApiServer, DockerRegistry, KubeUser, RegistryOptions, free_address},
};
use serde_json::json;

/// A pod as the webhook leaves it.
fn rewritten(name: &str, original: &str, image: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "labels": { "kuik.enix.io/managed": "true" },
            "annotations": { "kuik.enix.io/rewrite-images": "true", "original-image-web": original },
        },
        "spec": { "containers": [{ "name": "web", "image": image }] },
    })
    .to_string()
}

async fn delete_pod(user: &KubeUser, name: &str) {
    user.kubectl(["delete", "pod", name, "--namespace=shop", "--grace-period=0", "--force"]).await.unwrap();
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn an_image_is_kept_from_its_first_pod_until_its_date() {
    let server = api_server().await;
    let admin = server.admin();
    let user = server.user("controllers", None).unwrap();
    let image = SampleImage::small(95);
    let mut docker = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let source = format!("{}/team/app:v1", docker.host());
    push(&image, &source, &[]).await;

    let cache = free_address().await.unwrap().to_string();
    let mut controller = Kuik::controllers(&user, &cache, &["--leader-elect", "--proxy-port=7439"]).await;
    eventually("it is ready", async || get(controller.address(), "/readyz").await.status == 200).await;

    // It has made the token that the cache is written to with.
    let secret = ["secret", "kuik-registry-token", "--namespace=kuik-system"];
    let secret = object(admin, &secret).await.unwrap();
    let token = STANDARD.decode(secret["data"]["token"].as_str().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, token).unwrap();
    let host = docker.host();
    let flags = ["--pull-through", "--insecure-registries", &host, "--token-file", file.to_str().unwrap()];
    let registry = Kuik::registry_at(&cache, &folder.path().join("data"), &flags).await;

    // A pod comes: its image is kept.
    let kept = proxied(&host, "team/app");
    let through = format!("localhost:7439/{kept}:v1");
    admin.apply(&rewritten("first", &source, &through)).await.unwrap();
    let repository = format!("{}-team-app", host.replace(':', "-"));
    let name = format!("{repository}-v1");
    let cached = ["cachedimages", &name];
    eventually("the image is cached", async || {
        object(admin, &cached).await.is_some_and(|image| {
            image["status"]["phase"] == "Ready"
                && image["status"]["isCached"] == true
                && image["status"]["usedBy"]["count"] == 1
        })
    })
    .await;
    let made = object(admin, &cached).await.unwrap();
    assert_eq!(made["spec"], json!({ "sourceImage": source }));
    assert_eq!(made["status"]["usedBy"]["pods"], json!([{ "namespacedName": "shop/first" }]));
    eventually("the repository is ready", async || {
        object(admin, &["repositories.kuik.enix.io", &repository])
            .await
            .is_some_and(|found| found["status"]["phase"] == "Ready" && found["status"]["images"] == 1)
    })
    .await;
    docker.stop().await.unwrap();
    pull_with_skopeo(&format!("{cache}/{kept}:v1"), &image).await;

    let table = admin.kubectl(["get", "cachedimages"]).await.unwrap();
    let (head, row) = table.trim().split_once('\n').unwrap();
    let columns: Vec<_> = head.split("  ").filter(|word| !word.is_empty()).map(str::trim).collect();
    assert_eq!(columns, ["NAME", "STATUS", "CACHED", "RETAIN", "EXPIRES AT", "PODS COUNT", "AGE"]);
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!(row[..4], [name.as_str(), "Ready", "true", "1"], "neither retained nor expiring: {table}");
    exposes_what_is_documented(&controller).await;

    // Unused first, then used by a pod.
    let expires = async || {
        let found = object(admin, &cached).await.unwrap();
        found["spec"]["expiresAt"].as_str().map(str::to_owned)
    };
    delete_pod(admin, "first").await;
    eventually("it expires", async || expires().await.is_some()).await;
    admin.apply(&rewritten("second", &source, &through)).await.unwrap();
    eventually("it no longer does", async || expires().await.is_none()).await;

    // Unused until its expiry date has passed.
    delete_pod(admin, "second").await;
    eventually("it expires again", async || expires().await.is_some()).await;
    let past = r#"{"spec": {"expiresAt": "2020-01-01T00:00:00Z"}}"#;
    admin.kubectl(["patch", "cachedimage", &name, "--type=merge", "--patch", past]).await.unwrap();
    eventually("it is gone", async || object(admin, &cached).await.is_none()).await;
    let answer = get(registry.address(), &format!("/v2/{kept}/manifests/v1")).await;
    assert_ne!(answer.status, 200, "its tag is deleted, and the source is down");

    // It could do all that it had to, and lets the lead go.
    assert!(!controller.log().contains("forbidden"), "{}", controller.log());
    controller.terminate();
    assert!(controller.ended().await.success(), "{}", controller.log());
    let lease = object(admin, &["lease", "kuik-controller", "--namespace=kuik-system"]).await.unwrap();
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    assert_eq!(holder, "", "the next one need not wait");
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn a_tag_that_moves_is_followed_as_its_repository_says() {
    let server = api_server().await;
    let admin = server.admin();
    let docker = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let source = format!("{}/team/app:v1", docker.host());
    let [old, new] = [96, 196].map(SampleImage::small);
    push(&old, &source, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let registry = Kuik::open_cache("127.0.0.1:0", folder.path(), &docker.host()).await;
    let user = server.user("controllers", None).unwrap();
    let _controller = Kuik::controllers(&user, &registry.host(), &["--registry-token-secret="]).await;
    admin.apply(&pod("web", &source).to_string()).await.unwrap();
    let repository = format!("{}-team-app", docker.host().replace(':', "-"));
    let has = async |image: &SampleImage| {
        let object = object(admin, &["cachedimages", &format!("{repository}-v1")]).await;
        object.is_some_and(|object| object["status"]["digest"] == image.index().digest().encoded())
    };
    eventually("the image is cached", async || has(&old).await).await;

    push(&new, &source, &[]).await;
    let interval = r#"{"spec": {"updateInterval": "10s"}}"#;
    admin.kubectl(["patch", "repository", &repository, "--type=merge", "--patch", interval]).await.unwrap();
    eventually("what the tag is now is cached", async || has(&new).await).await;
    // Each interval ends, and the next one begins with it.
    let ended = std::sync::Mutex::new(Vec::new());
    within(std::time::Duration::from_secs(150), "three intervals have ended", async || {
        let object = object(admin, &["repositories.kuik.enix.io", &repository]).await.unwrap();
        let last =
            object["status"]["lastUpdate"].as_str().and_then(|last| last.parse::<jiff::Timestamp>().ok());
        let mut ended = ended.lock().unwrap();
        if let Some(last) = last.filter(|last| !ended.contains(last)) {
            ended.push(last);
        }
        ended.len() == 3
    })
    .await;
    let ended = ended.into_inner().unwrap();
    assert!(ended.windows(2).all(|two| two[1].duration_since(two[0]).as_secs() >= 10), "{ended:?}");
}

/// A registry that opens with a password, with an image in it.
async fn private_source(image: &SampleImage) -> DockerRegistry {
    let private = RegistryOptions {
        basic: Some(("reader".to_owned(), "its-password".to_owned())),
        ..RegistryOptions::default()
    };
    let docker = DockerRegistry::start(&private).await.unwrap();
    push(image, &format!("{}/team/app:v1", docker.host()), &["--dest-creds=reader:its-password"]).await;
    docker
}

/// The pull secret of a pod, which opens `host` with this password.
async fn secret(admin: &KubeUser, host: &str, password: &str) {
    let opens = STANDARD.encode(format!("reader:{password}"));
    let config = json!({ "auths": { host: { "auth": opens } } }).to_string();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": { "name": "opens", "namespace": "shop" }, "stringData": { ".dockerconfigjson": config },
    });
    admin.apply(&secret.to_string()).await.unwrap();
}

/// A pod from before the webhook that names a secret of its namespace.
fn private_pod(host: &str) -> String {
    let mut private = pod("private", &format!("{host}/team/app:v1"));
    private["spec"]["imagePullSecrets"] = json!([{ "name": "opens" }]);
    private.to_string()
}

/// Such a pod with its secret; waits until its image is in the cache.
async fn private_pod_is_kept(admin: &KubeUser, host: &str) {
    secret(admin, host, "its-password").await;
    admin.apply(&private_pod(host)).await.unwrap();
    let name = name_of_app(host, "v1");
    eventually("the image is cached", async || is_cached(admin, &name).await).await;
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn a_private_image_is_pushed_into_a_registry_of_another_make() {
    let server = api_server().await;
    let user = server.user("controllers", None).unwrap();
    let image = SampleImage::small(96);
    let docker = private_source(&image).await;
    let cache = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let (host, kept_in) = (docker.host(), cache.host());
    let arguments = ["--registry-kind=oci", "--registry-token-secret=", "--insecure-registries", &host];
    let controller = Kuik::controllers(&user, &kept_in, &arguments).await;

    private_pod_is_kept(server.admin(), &host).await;
    pull_with_skopeo(&format!("{kept_in}/{}:v1", proxied(&host, "team/app")), &image).await;
    assert!(!controller.log().contains("its-password") && !controller.log().contains("forbidden"));
}

/// A cache in `folder` that opens what is at `source` with the pull secrets of the cluster.
async fn cache_in_cluster(server: &ApiServer, folder: &Path, source: &str) -> Kuik {
    let puller = server.user("puller", None).unwrap();
    let storage = format!("file://{}", folder.join("data").display());
    let flags = ["--pull-through", "--kubernetes", "--insecure-registries", source, "--allow-anonymous-push"];
    let environment = [("KUBECONFIG", puller.kubeconfig().to_str().unwrap())];
    Kuik::registry_in(&storage, &flags, &environment).await
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn the_cache_opens_a_private_image_with_the_secrets_of_its_pods() {
    let server = api_server().await;
    let user = server.user("controllers", None).unwrap();
    let image = SampleImage::small(97);
    let mut docker = private_source(&image).await;
    let host = docker.host();
    let data = tempfile::tempdir().unwrap();
    let registry = cache_in_cluster(&server, data.path(), &host).await;
    let cache = registry.host();
    let controller = Kuik::controllers(&user, &cache, &["--registry-token-secret="]).await;

    private_pod_is_kept(server.admin(), &host).await;
    docker.stop().await.unwrap();
    pull_with_skopeo(&format!("{cache}/{}:v1", proxied(&host, "team/app")), &image).await;
    for log in [controller.log(), registry.log()] {
        assert!(!log.contains("its-password") && !log.contains("forbidden"), "{log}");
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn a_private_image_is_cached_when_its_secret_is_there_and_right() {
    let server = api_server().await;
    let admin = server.admin();
    let user = server.user("controllers", None).unwrap();
    let image = SampleImage::small(98);
    let docker = private_source(&image).await;
    let host = docker.host();
    let data = tempfile::tempdir().unwrap();
    let registry = cache_in_cluster(&server, data.path(), &host).await;
    let _controller = Kuik::controllers(&user, &registry.host(), &["--registry-token-secret="]).await;
    let name = name_of_app(&host, "v1");

    admin.apply(&private_pod(&host)).await.unwrap();
    eventually("nothing opens it", async || {
        object(admin, &["cachedimages", &name])
            .await
            .is_some_and(|image| image["status"]["phase"] == "ErrImagePull")
    })
    .await;
    registry.logs("secret not found").await;
    let garbage = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": "opens", "namespace": "shop" }, "stringData": { ".dockerconfigjson": "{garbage" },
    });
    // A secret's type is fixed: who mends it makes it again.
    admin.apply(&garbage.to_string()).await.unwrap();
    registry.logs("is not a docker config").await;
    admin.kubectl(["delete", "secret", "opens", "--namespace=shop"]).await.unwrap();
    secret(admin, &host, "not-its-password").await;
    secret(admin, &host, "its-password").await;
    let patience = std::time::Duration::from_secs(180);
    within(patience, "the image is cached", async || is_cached(admin, &name).await).await;
}

/// Compares the metrics of a leader with the document, both ways.
async fn exposes_what_is_documented(controller: &Kuik) {
    let text = String::from_utf8(get(controller.address(), "/metrics").await.body).unwrap();
    assert_eq!(exposed(&text), documented(|name| name.starts_with("kube_image_keeper_controller_")));
    for series in [
        "is_leader 1",
        r#"cached_images{status="Ready",cached="true",expiring="false"} 1"#,
        r#"containers_with_cached_image{status="Ready",cached="true"} 1"#,
        r#"repositories{status="Ready"} 1"#,
        "image_put_in_cache_total 1",
    ] {
        assert!(
            text.contains(&format!("kube_image_keeper_controller_{series}\n")),
            "{series} is not in:\n{text}"
        );
    }
}
