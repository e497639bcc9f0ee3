//! `kuik serve` in front of registries with access control or redirects.

use std::{net::SocketAddr, path::Path};

use crate::support::{Kuik, Nginx, blob_path, eventually, get, proxied, pull_with_skopeo, push};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use kuik_testkit::{
    SampleImage,
    real::{DockerRegistry, ForwardProxy, RegistryOptions, free_address},
};

const USER: &str = "reader";
const PASSWORD: &str = "hunter2-and-more";

/// The value that the user and the password become in `Authorization`, after `Basic`.
fn account() -> String {
    BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

/// A docker config in `folder` with the account for `host`.
fn docker_config(folder: &Path, host: &str) -> String {
    let file = folder.join("config.json");
    let config = serde_json::json!({"auths": {host: {"auth": account()}}});
    std::fs::write(&file, config.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

async fn private_registry(storage: Option<&Path>) -> DockerRegistry {
    let options = RegistryOptions {
        basic: Some((USER.to_owned(), PASSWORD.to_owned())),
        storage: storage.map(Path::to_owned),
        ..RegistryOptions::default()
    };
    DockerRegistry::start(&options).await.unwrap()
}

#[tokio::test]
async fn a_private_registry_opens_to_the_docker_config() {
    let image = SampleImage::small(11);
    let registry = private_registry(None).await;
    let host = registry.host();
    push(&image, &format!("{host}/app/one:v1"), &["--dest-creds", &format!("{USER}:{PASSWORD}")]).await;
    let folder = tempfile::tempdir().unwrap();
    let config = docker_config(folder.path(), &host);

    let data = tempfile::tempdir().unwrap();
    let arguments = ["--insecure-registries", &host, "--docker-config", &config, "--log", "debug"];
    let kuik = Kuik::serve(data.path(), &arguments).await;
    pull_with_skopeo(&format!("{}/{}:v1", kuik.host(), proxied(&host, "app/one")), &image).await;
    let log = kuik.log();
    assert!(!log.contains(PASSWORD) && !log.contains(&account()), "credentials are logged:\n{log}");

    let data = tempfile::tempdir().unwrap();
    let kuik = Kuik::serve(data.path(), &["--insecure-registries", &host]).await;
    let refused = get(kuik.address(), &format!("/v2/{}/manifests/v1", proxied(&host, "app/one"))).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (401, "UNAUTHORIZED"), "{refused:?}");
}

#[tokio::test]
async fn a_registry_under_a_private_authority_needs_that_authority() {
    let authority = Authority::new();
    let image = SampleImage::small(12);
    let registry = authority.registry("127.0.0.1", &image).await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("ca.pem");
    std::fs::write(&roots, &authority.pem).unwrap();
    let upstream = format!("private.test={}", registry.url());

    let data = tempfile::tempdir().unwrap();
    let arguments = ["--upstream", &upstream, "--root-certificate-authorities", roots.to_str().unwrap()];
    let kuik = Kuik::serve(data.path(), &arguments).await;
    pull_with_skopeo(&format!("{}/private.test/app/one:v1", kuik.host()), &image).await;

    let data = tempfile::tempdir().unwrap();
    let kuik = Kuik::serve(data.path(), &["--upstream", &upstream]).await;
    let refused = get(kuik.address(), "/v2/private.test/app/one/manifests/v1").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let message = String::from_utf8_lossy(&refused.body).to_lowercase();
    assert!(message.contains("certificate"), "the message does not say what is wrong: {message}");
}

#[tokio::test]
async fn an_authority_that_comes_later_is_trusted_without_a_restart() {
    let [before, authority] = [Authority::new(), Authority::new()];
    let image = SampleImage::small(15);
    let registry = authority.registry("127.0.0.1", &image).await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("ca.pem");
    std::fs::write(&roots, &before.pem).unwrap();
    let upstream = format!("private.test={}", registry.url());
    let arguments = ["--upstream", &upstream, "--root-certificate-authorities", roots.to_str().unwrap()];
    let data = tempfile::tempdir().unwrap();
    let kuik = Kuik::serve(data.path(), &arguments).await;
    let path = "/v2/private.test/app/one/manifests/v1";
    assert_eq!(get(kuik.address(), path).await.status, 503);

    std::fs::write(&roots, "nothing of use").unwrap();
    kuik.logs("cannot load certificate authorities").await;
    std::fs::write(&roots, &authority.pem).unwrap();
    eventually("it is trusted", async || get(kuik.address(), path).await.status == 200).await;
    pull_with_skopeo(&format!("{}/private.test/app/one:v1", kuik.host()), &image).await;
}

/// As in a company: a registry under a private authority, and a forward proxy that wants a password on the way to it.
#[tokio::test]
async fn node_proxy_uses_the_http_proxy() {
    // Loopback is contacted directly in its usual spellings; in this one, an upstream is anywhere.
    let (address, host) = ("::ffff:7f00:1", "[::ffff:7f00:1]");
    let authority = Authority::new();
    let image = SampleImage::small(14);
    let registry = authority.registry(address, &image).await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("ca.pem");
    std::fs::write(&roots, &authority.pem).unwrap();
    let company = ForwardProxy::start(Some(("corp", PASSWORD))).await.unwrap();
    let at = registry.host();
    let port = at.rsplit_once(':').unwrap().1;
    let upstream = format!("private.test=https://{host}:{port}");
    let arguments = [
        "--upstream",
        &upstream,
        "--root-certificate-authorities",
        roots.to_str().unwrap(),
        "--log",
        "trace",
    ];
    let cache = ["127.0.0.1:1".to_owned()];
    let way = format!("http://corp:{PASSWORD}@{}", company.host());
    let proxy = Kuik::proxy_at("127.0.0.1:0", &cache, &arguments, &[("HTTPS_PROXY", &way)], &[]).await;
    pull_with_skopeo(&format!("{}/private.test/app/one:v1", proxy.host()), &image).await;
    let tunnels = company.log().unwrap();
    assert!(tunnels.contains(&format!("CONNECT {host}:{port}")), "{tunnels}");
    let log = proxy.log();
    let encoded = BASE64_STANDARD.encode(format!("corp:{PASSWORD}"));
    assert!(!log.contains(PASSWORD) && !log.contains(&encoded), "credentials are logged:\n{log}");
}

/// A private registry whose blobs are elsewhere: nginx checks the account, and sends clients to another host.
struct Redirecting {
    nginx: Nginx,
    front: SocketAddr,
    storage: SocketAddr,
    _registry: DockerRegistry,
    _folder: tempfile::TempDir,
}

impl Redirecting {
    async fn start(image: &SampleImage) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = private_registry(Some(folder.path())).await;
        let destination = format!("{}/app/one:v1", registry.host());
        push(image, &destination, &["--dest-creds", &format!("{USER}:{PASSWORD}")]).await;
        let front = free_address().await.unwrap();
        let storage = another_loopback_address();
        let pass = format!("proxy_pass {}; proxy_set_header Host $http_host;", registry.url());
        let http = format!(
            "server {{ listen {front}; access_log front.log seen;\n\
             location / {{ {pass} }}\n\
             location ~ \"^/v2/.+/blobs/sha256:(?<shard>[0-9a-f]{{2}})(?<rest>[0-9a-f]{{62}})$\" {{\n\
             if ($http_authorization = \"Basic {account}\") {{\n\
             return 307 http://{storage}/docker/registry/v2/blobs/sha256/$shard/$shard$rest/data; }}\n\
             {pass} }} }}\n\
             server {{ listen {storage}; access_log storage.log seen; root {root:?}; }}",
            account = account(),
            root = folder.path(),
        );
        let nginx = Nginx::start(front, &http).await;
        Self { nginx, front, storage, _registry: registry, _folder: folder }
    }
}

/// A free port of `127.0.0.2`: another host, as far as credentials go.
fn another_loopback_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn redirects_are_followed_without_the_credentials() {
    let image = SampleImage::small(13);
    let upstream = Redirecting::start(&image).await;
    let (front, storage) = (upstream.front.to_string(), upstream.storage.to_string());
    let folder = tempfile::tempdir().unwrap();
    let config = docker_config(folder.path(), &front);

    let data = tempfile::tempdir().unwrap();
    let insecure = format!("{front},{storage}");
    let arguments = ["--insecure-registries", &insecure, "--docker-config", &config];
    let kuik = Kuik::serve(data.path(), &arguments).await;
    // The client of these tests follows no redirect: what it gets, the proxy has fetched.
    let layer = &image.layers()[0].digest;
    let blob = get(kuik.address(), &blob_path(&front, "app/one", layer)).await;
    assert_eq!(blob.status, 200, "{}", blob.head);
    assert!(blob.body == image.blobs()[layer]);
    pull_with_skopeo(&format!("{}/{}:v1", kuik.host(), proxied(&front, "app/one")), &image).await;

    for digest in image.blobs().keys() {
        let log = upstream.nginx.log_with("storage.log", digest.encoded()).await;
        let all_without = log.lines().all(|line| line.ends_with("authorization=\"-\""));
        assert!(all_without, "credentials were sent to the storage:\n{log}");
        let log = upstream.nginx.log_with("front.log", digest.encoded()).await;
        assert!(log.contains(&format!("{digest} 307 authorization=\"Basic {}\"", account())), "{log}");
    }
}

#[tokio::test]
async fn redirects_to_unlisted_hosts_are_refused() {
    let image = SampleImage::small(14);
    let upstream = Redirecting::start(&image).await;
    let front = upstream.front.to_string();
    let folder = tempfile::tempdir().unwrap();
    let config = docker_config(folder.path(), &front);

    let data = tempfile::tempdir().unwrap();
    let arguments = ["--insecure-registries", &front, "--docker-config", &config];
    let kuik = Kuik::serve(data.path(), &arguments).await;
    let blob = get(kuik.address(), &blob_path(&front, "app/one", &image.layers()[0].digest)).await;
    assert_eq!((blob.status, blob.error_code().as_str()), (403, "DENIED"), "{blob:?}");
    assert_eq!(upstream.nginx.log("storage.log"), "");
}

/// A private certificate authority.
struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority of the tests");
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let pem = issuer.pem();
        Self { issuer, pem }
    }

    /// Docker's registry with a certificate for `name`, and `image` as `app/one:v1`.
    async fn registry(&self, name: &str, image: &SampleImage) -> DockerRegistry {
        let tls = Some(self.issue(name));
        let options = RegistryOptions { tls, ..RegistryOptions::default() };
        let registry = DockerRegistry::start(&options).await.unwrap();
        push(image, &format!("{}/app/one:v1", registry.host()), &[]).await;
        registry
    }

    /// A certificate for `name`, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}
