//! Controllers and their cache together: what pods use stays in a cache that is too small, across restarts of either
//! side, and in a cache that two clusters share.

use std::path::Path;

use crate::support::{
    Kuik, api_server, ask, blob_data, eventually, get, is_cached, name_of_app, object, pod, proxied,
    pull_with_skopeo, push,
};
use kuik_core::{content::Manifest, retention::RETENTION_PATH};
use kuik_testkit::{
    SampleImage,
    real::{ApiServer, DockerRegistry, KubeUser, RegistryOptions, free_address},
};
use serde_json::{Value, json};

/// Space for five images of a mebibyte.
const LIMIT: &str = "5600000";

fn image(seed: u64) -> SampleImage {
    SampleImage::builder().seed(seed).platform("linux", "amd64").layer(1 << 20).build()
}

/// Returns whether a data directory has a complete image.
fn has(data: &Path, image: &SampleImage) -> bool {
    let manifests = image.manifests().iter().chain([image.index()]).map(Manifest::digest);
    image.blobs().keys().chain(manifests).all(|digest| blob_data(data, digest).exists())
}

/// Docker's registry with these images as `team/app`.
async fn source(images: &[(&str, SampleImage)]) -> DockerRegistry {
    let docker = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    for (tag, image) in images {
        push(image, &format!("{}/team/app:{tag}", docker.host()), &[]).await;
    }
    docker
}

async fn cluster_id(admin: &KubeUser) -> String {
    let namespace = object(admin, &["namespace", "kube-system"]).await.unwrap();
    namespace["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Returns what the cache knows about the images of `team/app` in a cluster, by tag.
async fn reported(cache: &Kuik, cluster: &str, repository: &str) -> Value {
    let answer = get(cache.address(), &format!("{RETENTION_PATH}{cluster}")).await;
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    document["repositories"][repository].clone()
}

async fn create(admin: &KubeUser, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": "kuik.enix.io/v1alpha1", "kind": "CachedImage",
        "metadata": { "name": name }, "spec": spec,
    });
    admin.apply(&object.to_string()).await.unwrap();
}

async fn controllers(server: &ApiServer, cache: &str) -> Kuik {
    let user = server.user("controllers", None).unwrap();
    Kuik::controllers(&user, cache, &["--registry-token-secret=", "--verify-interval=2s"]).await
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn images_in_use_and_retained_survive_a_small_cache_and_restarts_of_both_sides() {
    let tags = ["used-1", "used-2", "retained", "unused"];
    let images: Vec<_> = tags.into_iter().zip((0..).map(|seed| image(700 + seed))).collect();
    let others: Vec<_> = ["other-1", "other-2", "other-3", "other-4", "other-5", "other-6"]
        .into_iter()
        .zip((0..).map(|seed| image(720 + seed)))
        .collect();
    let docker = source(&[&images[..], &others[..]].concat()).await;
    let server = api_server().await;
    let admin = server.admin();
    let cluster = cluster_id(admin).await;
    let (host, folder) = (docker.host(), tempfile::tempdir().unwrap());
    let (data, cache) = (folder.path().join("data"), free_address().await.unwrap().to_string());
    let flags =
        ["--pull-through", "--insecure-registries", &host, "--allow-anonymous-push", "--max-size", LIMIT];
    let mut registry = Kuik::registry_at(&cache, &data, &flags).await;
    let mut controller = controllers(&server, &cache).await;
    let (source, repository) = (format!("{host}/team/app"), proxied(&host, "team/app"));

    for tag in ["used-1", "used-2"] {
        admin.apply(&pod(tag, &format!("{source}:{tag}")).to_string()).await.unwrap();
    }
    let name = |tag: &str| name_of_app(&host, tag);
    create(admin, &name("retained"), json!({ "sourceImage": format!("{source}:retained"), "retain": true }))
        .await;
    create(admin, &name("unused"), json!({ "sourceImage": format!("{source}:unused") })).await;
    for tag in tags {
        eventually("the image is cached", async || is_cached(admin, &name(tag)).await).await;
    }
    let states = async |registry: &Kuik| {
        let images = reported(registry, &cluster, &repository).await;
        tags.map(|tag| images[tag]["state"].as_str().unwrap_or_default().to_owned())
    };
    eventually("the cache knows about them", async || {
        states(&registry).await == ["inUse", "inUse", "retained", "unused"]
    })
    .await;

    // Other images are pulled through the cache, more than fit: the images of long-running pods are the least recently
    // pulled.
    let pull_others = async |registry: &Kuik| {
        for (tag, other) in &others {
            pull_with_skopeo(&format!("{}/{repository}:{tag}", registry.host()), other).await;
        }
    };
    let needed_are_there = || {
        for (tag, image) in images.iter().take(3) {
            assert!(has(&data, image), "{tag} is in use or retained");
        }
    };
    pull_others(&registry).await;
    needed_are_there();
    eventually("the unused image is evicted", async || {
        pull_others(&registry).await;
        !has(&data, &images[3].1)
    })
    .await;
    needed_are_there();

    // The cache is restarted without the controllers: it knows from its store.
    controller.terminate();
    assert!(controller.ended().await.success());
    registry.terminate();
    assert!(registry.ended().await.success());
    let registry = Kuik::registry_at(&cache, &data, &flags).await;
    pull_others(&registry).await;
    needed_are_there();

    // The document is lost: the controllers repair it.
    let controller = controllers(&server, &cache).await;
    eventually("it reports again", async || states(&registry).await[..2] == ["inUse", "inUse"]).await;
    let target = format!("{RETENTION_PATH}{cluster}");
    assert_eq!(ask(registry.address(), "DELETE", &target).await.status, 204);
    eventually("the document is there again", async || states(&registry).await[..2] == ["inUse", "inUse"])
        .await;
    pull_others(&registry).await;
    needed_are_there();
    assert!(!controller.log().contains("forbidden"), "{}", controller.log());
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn expiry_in_one_cluster_keeps_the_tag_that_another_one_uses() {
    let docker = source(&[("v1", image(740))]).await;
    let (one, other) = (api_server().await, api_server().await);
    let folder = tempfile::tempdir().unwrap();
    let registry = Kuik::open_cache("127.0.0.1:0", folder.path(), &docker.host()).await;
    let (_first, _second) =
        (controllers(&one, &registry.host()).await, controllers(&other, &registry.host()).await);
    let (source, repository) =
        (format!("{}/team/app:v1", docker.host()), proxied(&docker.host(), "team/app"));
    let name = name_of_app(&docker.host(), "v1");
    for server in [&one, &other] {
        server.admin().apply(&pod("web", &source).to_string()).await.unwrap();
        eventually("the image is cached", async || is_cached(server.admin(), &name).await).await;
        let cluster = cluster_id(server.admin()).await;
        eventually("the cache knows that it is in use", async || {
            reported(&registry, &cluster, &repository).await["v1"]["state"] == "inUse"
        })
        .await;
    }
    let tag =
        folder.path().join("docker/registry/v2/repositories").join(&repository).join("_manifests/tags/v1");
    let release = async |server: &ApiServer| {
        let admin = server.admin();
        let pod = ["delete", "pod", "web", "--namespace=shop", "--grace-period=0", "--force"];
        admin.kubectl(pod).await.unwrap();
        eventually("it is unused", async || {
            object(admin, &["cachedimages", &name]).await.unwrap()["spec"]["expiresAt"].is_string()
        })
        .await;
        let past = r#"{"spec": {"expiresAt": "2020-01-01T00:00:00Z"}}"#;
        admin.kubectl(["patch", "cachedimage", &name, "--type=merge", "--patch", past]).await.unwrap();
        eventually("it has expired", async || object(admin, &["cachedimages", &name]).await.is_none()).await;
    };
    release(&one).await;
    assert!(tag.exists(), "the other cluster uses it");
    assert!(is_cached(other.admin(), &name).await);
    let cluster = cluster_id(one.admin()).await;
    eventually("the cache knows that the first cluster released it", async || {
        reported(&registry, &cluster, &repository).await.is_null()
    })
    .await;
    release(&other).await;
    assert!(!tag.exists(), "no cluster uses it");
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn cache_without_retention_documents_is_reported_once_and_works() {
    let docker = source(&[("v1", image(750))]).await;
    let cache = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let server = api_server().await;
    let user = server.user("controllers", None).unwrap();
    let host = docker.host();
    let flags = [
        "--registry-token-secret=",
        "--verify-interval=1s",
        "--registry-kind=oci",
        "--insecure-registries",
        &host,
    ];
    let controller = Kuik::controllers(&user, &cache.host(), &flags).await;
    server.admin().apply(&pod("web", &format!("{host}/team/app:v1")).to_string()).await.unwrap();
    let name = name_of_app(&host, "v1");
    eventually("the image is cached", async || is_cached(server.admin(), &name).await).await;
    let reports = || controller.log().matches("does not support retention documents").count();
    eventually("it is reported", async || reports() == 1).await;
    server.admin().apply(&pod("again", &format!("{host}/team/app:v1")).to_string()).await.unwrap();
    eventually("both pods use it", async || {
        let object = object(server.admin(), &["cachedimages", &name]).await.unwrap();
        object["status"]["usedBy"]["count"] == 2
    })
    .await;
    assert_eq!(reports(), 1);
}
