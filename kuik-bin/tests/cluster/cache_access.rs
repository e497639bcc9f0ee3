//! Controllers and a node's proxy over a cache that requires TLS and credentials: kuik's own registry with a token that is
//! rotated, and Docker's registry with a password.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kuik_testkit::{
    SampleImage, ScriptedRegistry,
    real::{ApiServer, DockerRegistry, RegistryOptions, RegistryVersion},
};
use serde_json::json;

use crate::support::{
    Authority, Kuik, api_server, eventually, get, is_cached, name_of_app, object, pod, proxied,
};

/// Creates a pod that uses `image` as `team/app:TAG` of the upstream; waits until the controllers say that it is cached.
async fn keeps(server: &ApiServer, upstream: &ScriptedRegistry, tag: &str, image: &SampleImage) {
    upstream.add_image("team/app", tag, image);
    let reference = format!("{}/team/app:{tag}", upstream.host());
    server.admin().apply(&pod(tag, &reference).to_string()).await.unwrap();
    let name = name_of_app(&upstream.host(), tag);
    eventually("the image is cached", async || is_cached(server.admin(), &name).await).await;
}

/// Whether a node's proxy has the index and each manifest and blob of an image.
async fn pulls(node: &Kuik, upstream: &ScriptedRegistry, tag: &str, image: &SampleImage) -> bool {
    let repository = proxied(&upstream.host(), "team/app");
    let blobs = image.blobs().keys().map(|digest| format!("blobs/{digest}"));
    for path in std::iter::once(format!("manifests/{tag}")).chain(blobs) {
        if get(node.address(), &format!("/v2/{repository}/{path}")).await.status != 200 {
            return false;
        }
    }
    true
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn controllers_follow_a_rotated_token_of_a_protected_cache_over_tls() {
    let (server, upstream) = (api_server().await, ScriptedRegistry::start().await.unwrap());
    let user = server.user("controllers", None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    Authority::new().write(folder.path(), "localhost");
    std::fs::write(path("token"), "the-first-token").unwrap();
    let in_cluster = async |token: &str| {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "kuik-registry-token", "namespace": "kuik-system" },
            "data": { "token": STANDARD.encode(token) },
        });
        server.admin().apply(&secret.to_string()).await.unwrap();
    };
    in_cluster("the-first-token").await;
    let host = upstream.host();
    let serving = [
        ["--tls-cert-file", &path("tls.crt")],
        ["--tls-private-key-file", &path("tls.key")],
        ["--token-file", &path("token")],
        ["--insecure-registries", &host],
        ["--pull-through", "--protect-reads"],
    ];
    let cache = Kuik::registry(&folder.path().join("data"), serving.as_flattened()).await;
    let endpoint = format!("https://localhost:{}", cache.address().port());
    let trust = ["--registry-certificate-authority", &path("ca.crt"), "--insecure-registries", &host];
    let controllers = Kuik::controllers(&user, &endpoint, &trust).await;
    let token = path("token");
    let reads = [&trust[..], &["--registry-credentials-file", &token]].concat();
    let node = Kuik::proxy(std::slice::from_ref(&endpoint), &reads).await;
    let [one, two] = [311, 312].map(SampleImage::small);
    keeps(&server, &upstream, "one", &one).await;

    in_cluster("the-second-token").await;
    std::fs::write(path("token"), "the-second-token").unwrap();
    keeps(&server, &upstream, "two", &two).await;
    upstream.stop().await;
    for (tag, image) in [("one", &one), ("two", &two)] {
        eventually("it is pulled from the cache", async || pulls(&node, &upstream, tag, image).await).await;
    }
    assert!(cache.log().contains("token reloaded"), "{}", cache.log());
    assert!(!controllers.log().contains("forbidden"), "{}", controllers.log());
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn docker_registry_3_with_a_password_over_tls_is_the_cache() {
    let (server, upstream) = (api_server().await, ScriptedRegistry::start().await.unwrap());
    let user = server.user("controllers", None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let authority = Authority::new();
    authority.write(folder.path(), "localhost");
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    let options = RegistryOptions {
        version: RegistryVersion::V3,
        basic: Some(("kuik".to_owned(), "its-password".to_owned())),
        tls: Some((read("tls.crt"), read("tls.key"))),
        ..RegistryOptions::default()
    };
    let cache = DockerRegistry::start(&options).await.unwrap();
    let port = cache.host().rsplit_once(':').unwrap().1.to_owned();
    let endpoint = format!("https://localhost:{port}");
    let auth = STANDARD.encode("kuik:its-password");
    let config = json!({ "auths": { format!("localhost:{port}"): { "auth": auth } } });
    std::fs::write(path("config.json"), config.to_string()).unwrap();
    let access = [
        ["--registry-certificate-authority", &path("ca.crt")],
        ["--registry-credentials-file", &path("config.json")],
        ["--insecure-registries", &upstream.host()],
    ];
    let access = access.as_flattened();
    let pushes = [access, &["--registry-kind=oci"]].concat();
    let controllers = Kuik::controllers(&user, &endpoint, &pushes).await;
    let node = Kuik::proxy(std::slice::from_ref(&endpoint), access).await;
    let image = SampleImage::small(321);
    keeps(&server, &upstream, "one", &image).await;
    upstream.stop().await;
    assert!(pulls(&node, &upstream, "one", &image).await, "{}", node.log());
    // No token of kuik's own registry is made.
    let token = ["secret", "kuik-registry-token", "--namespace=kuik-system"];
    assert!(object(server.admin(), &token).await.is_none(), "{}", controllers.log());
}
