//! SSRF protection of the registry client: redirects, addresses, plain HTTP.
#![cfg(feature = "client")]

use crate::support::{anonymous, client, named, read, tag};
use http::header::AUTHORIZATION;
use kuik_core::{
    client::{RegistryClient, Timeouts, Upstreams},
    content::{ByteRange, ContentSource, Digest, Freshness, SourceErrorKind},
    credentials::{Anonymous, Credential},
    reference::RepositoryName,
};
use kuik_testkit::{Access, Behavior, Rule, SampleImage, ScriptedRegistry, Target};

/// A registry with an image, and storage that has its blobs, at another port.
async fn with_storage() -> (ScriptedRegistry, ScriptedRegistry, SampleImage) {
    let (registry, storage) =
        (ScriptedRegistry::start().await.unwrap(), ScriptedRegistry::start().await.unwrap());
    let image = SampleImage::small(1);
    registry.add_image("app", "latest", &image);
    storage.add_image("app", "latest", &image);
    (registry, storage, image)
}

fn first(image: &SampleImage) -> (&Digest, &[u8]) {
    image.blobs().iter().map(|(digest, bytes)| (digest, &**bytes)).next().unwrap()
}

async fn refusal(client: &RegistryClient, repository: &RepositoryName) -> SourceErrorKind {
    client.manifest(repository, &tag("latest"), Freshness::Cached).await.unwrap_err().kind()
}

#[tokio::test]
async fn redirects_to_other_hosts_carry_no_credentials() {
    let (registry, storage, image) = with_storage().await;
    registry.set_access(Access::Basic { username: "user".to_owned(), password: "pass".to_owned() });
    let (digest, bytes) = first(&image);
    let target = format!("{}/v2/app/blobs/{digest}", storage.url());
    registry.script(Rule::on(Target::Blob).does(Behavior::Redirect(target)));
    let upstreams = named(&registry).insecure(&storage.host()).unwrap();
    let client = client(upstreams, vec![Credential::basic("user", "pass")], Timeouts::default());
    let app = registry.repository("app").unwrap();
    // Cache the credential before the blob request.
    client.manifest(&app, &tag("latest"), Freshness::Cached).await.unwrap();

    let blob = client.blob(&app, digest, ByteRange::From { first: 1, last: Some(3) }).await.unwrap().content;
    assert_eq!(blob.range, Some(1..4));
    assert_eq!(read(blob).await.unwrap(), bytes[1..4]);
    assert_eq!(client.blob_size(&app, digest).await.unwrap().content, bytes.len() as u64);
    let asked = registry.log().into_iter().find(|entry| entry.target == Target::Blob).unwrap();
    assert_ne!(asked.header(AUTHORIZATION), "");
    assert!(!storage.log().is_empty());
    for entry in storage.log() {
        assert_eq!(entry.header(AUTHORIZATION), "");
    }
}

#[tokio::test]
async fn redirect_within_the_registry_keeps_the_credential() {
    let (registry, _, image) = with_storage().await;
    registry.set_access(Access::Basic { username: "user".to_owned(), password: "pass".to_owned() });
    let (digest, bytes) = first(&image);
    let location = format!("/v2/app/blobs/{digest}?again");
    registry.script(Rule::on(Target::Blob).times(1).does(Behavior::Redirect(location)));
    let client = client(named(&registry), vec![Credential::basic("user", "pass")], Timeouts::default());
    let app = registry.repository("app").unwrap();
    let blob = client.blob(&app, digest, ByteRange::Full).await.unwrap().content;
    assert_eq!(read(blob).await.unwrap(), bytes);
}

#[tokio::test]
async fn challenge_of_a_redirect_target_is_ignored() {
    let (registry, storage, image) = with_storage().await;
    storage.set_access(Access::Basic { username: "user".to_owned(), password: "pass".to_owned() });
    let (digest, _) = first(&image);
    let target = format!("{}/v2/app/blobs/{digest}", storage.url());
    registry.script(Rule::on(Target::Blob).does(Behavior::Redirect(target)));
    let upstreams = named(&registry).insecure(&storage.host()).unwrap();
    let client = client(upstreams, vec![Credential::basic("user", "pass")], Timeouts::default());
    let app = registry.repository("app").unwrap();
    let error = client.blob(&app, digest, ByteRange::Full).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Unauthorized);
    assert_eq!(storage.log().len(), 1);
    assert_eq!(storage.log()[0].header(AUTHORIZATION), "");
}

#[tokio::test]
async fn redirects_are_bounded() {
    let (registry, _, image) = with_storage().await;
    let (digest, _) = first(&image);
    registry.script(Rule::on(Target::Blob).does(Behavior::Redirect(format!("/v2/app/blobs/{digest}"))));
    let app = registry.repository("app").unwrap();
    let error = anonymous(&registry).blob(&app, digest, ByteRange::Full).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::InvalidContent);
    assert_eq!(registry.count(Target::Blob), 6);
}

#[tokio::test]
async fn redirects_to_forbidden_addresses_are_refused() {
    let (registry, storage, image) = with_storage().await;
    let (digest, _) = first(&image);
    let app = registry.repository("app").unwrap();
    for target in [
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "https://169.254.169.254/".to_owned(),
        "http://[::ffff:169.254.169.254]/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        // Loopback, by address and by name, at a port that is not named.
        storage.url(),
        storage.url().replace("127.0.0.1", "localhost"),
        storage.url().replace("127.0.0.1", "[::1]"),
        storage.url().replace("127.0.0.1", "127.1"),
        storage.url().replace("127.0.0.1", "2130706433"),
        "file:///etc/passwd".to_owned(),
        "gopher://registry.example/".to_owned(),
    ] {
        registry.clear_script();
        registry.script(Rule::on(Target::Blob).does(Behavior::Redirect(target.clone())));
        let error = anonymous(&registry).blob(&app, digest, ByteRange::Full).await.unwrap_err();
        let expected = if target.starts_with("file:") {
            SourceErrorKind::InvalidContent
        } else {
            SourceErrorKind::Forbidden
        };
        assert_eq!(error.kind(), expected, "{target}: {}", error.chain());
    }
    assert!(storage.log().is_empty());
}

#[tokio::test]
async fn unconfigured_local_upstreams_are_refused() {
    let (registry, _, _) = with_storage().await;
    let port = registry.host().rsplit_once(':').unwrap().1.to_owned();
    let unnamed = client(Upstreams::default(), Anonymous, Timeouts::default());
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"] {
        let app = RepositoryName::new(&format!("{host}:{port}"), "app").unwrap();
        let error = unnamed.manifest(&app, &tag("latest"), Freshness::Cached).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Forbidden, "{host}: {}", error.chain());
    }
    // Another port of the same host is another registry.
    let other = client(Upstreams::default().insecure("127.0.0.1:1").unwrap(), Anonymous, Timeouts::default());
    assert_eq!(refusal(&other, &registry.repository("app").unwrap()).await, SourceErrorKind::Forbidden);
    assert_eq!(registry.connections(), 0);
    // A host that is configured by name may resolve to loopback.
    let by_name = Upstreams::default().insecure(&format!("localhost:{port}")).unwrap();
    let app = RepositoryName::new(&format!("localhost:{port}"), "app").unwrap();
    let client = client(by_name, Anonymous, Timeouts::default());
    client.manifest(&app, &tag("latest"), Freshness::Cached).await.unwrap();
}

#[tokio::test]
async fn override_is_used_with_its_own_credentials() {
    let (registry, _, _) = with_storage().await;
    registry.add_image("library/nginx", "latest", &SampleImage::small(3));
    registry.set_access(Access::Basic { username: "mirror".to_owned(), password: "pass".to_owned() });
    let upstreams = Upstreams::default().overriding(&format!("docker.io={}", registry.url())).unwrap();
    let config = format!(
        r#"{{"auths": {{
            "https://index.docker.io/v1/": {{"username": "hub", "password": "hunter2"}},
            "{}": {{"username": "mirror", "password": "pass"}}
        }}}}"#,
        registry.host()
    );
    let credentials = kuik_core::credentials::DockerConfig::parse("c", config.as_bytes()).unwrap();
    let client = client(upstreams, credentials, Timeouts::default());
    let nginx = RepositoryName::new("docker.io", "library/nginx").unwrap();
    client.manifest(&nginx, &tag("latest"), Freshness::Cached).await.unwrap();
    assert_eq!(registry.log().len(), 2, "the credentials of Docker Hub are not tried");
}
