//! `kuik-registry` as people run it: pushed to and pulled from by real clients, guarded by its token, on a full disk.

use std::path::Path;

use crate::support::{Kuik, Tmpfs, Transfer, blob_data, eventually, get, proxied, pull_with_skopeo, push};
use kuik_core::content::Digest;
use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, RegistryOptions, skopeo};

const OPEN: &[&str] = &["--allow-anonymous-push"];

/// Copies an image from one registry to another, with all its platforms and without changing a digest.
async fn copy(from: &str, to: &str) {
    let (from, to) = (format!("docker://{from}"), format!("docker://{to}"));
    let copied = skopeo([
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &from,
        &to,
    ]);
    copied.await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn skopeo_copies_in_and_out_and_digests_stay() {
    let image = SampleImage::small(21);
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (Kuik::registry(data.path(), OPEN).await, Kuik::registry(other.path(), OPEN).await);
    push(&image, &format!("{}/team/app:v1", first.host()), &[]).await;
    copy(&format!("{}/team/app:v1", first.host()), &format!("{}/copied:v2", second.host())).await;
    pull_with_skopeo(&format!("{}/copied:v2", second.host()), &image).await;
    pull_with_skopeo(&format!("{}/copied@{}", second.host(), image.index().digest()), &image).await;

    let metrics = String::from_utf8(get(first.address(), "/metrics").await.body).unwrap();
    for operation in ["upload_chunk", "upload_finish", "manifest_push", "manifest_pull", "blob_pull"] {
        let series = format!("registry_requests_total{{operation=\"{operation}\",outcome=\"ok\"}}");
        assert!(metrics.contains(&series), "{series} is not in:\n{metrics}");
    }
}

#[tokio::test]
async fn a_volume_goes_from_docker_to_us_and_back() {
    let (theirs, ours) = (SampleImage::small(22), SampleImage::small(23));
    let data = tempfile::tempdir().unwrap();
    let options = RegistryOptions { storage: Some(data.path().to_owned()), ..RegistryOptions::default() };

    let mut docker = DockerRegistry::start(&options).await.unwrap();
    push(&theirs, &format!("{}/team/theirs:v1", docker.host()), &[]).await;
    docker.stop().await.unwrap();

    let mut registry = Kuik::registry(data.path(), OPEN).await;
    pull_with_skopeo(&format!("{}/team/theirs@{}", registry.host(), theirs.index().digest()), &theirs).await;
    push(&ours, &format!("{}/team/ours:v1", registry.host()), &[]).await;
    registry.terminate();
    assert!(registry.ended().await.success());

    docker.resume().await.unwrap();
    for (name, image) in [("theirs", &theirs), ("ours", &ours)] {
        pull_with_skopeo(&format!("{}/team/{name}:v1", docker.host()), image).await;
    }
}

#[tokio::test]
async fn only_the_token_opens_pushes_and_a_new_one_needs_no_restart() {
    let image = SampleImage::small(24);
    let (data, secrets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = secrets.path().join("token");
    std::fs::write(&file, "the-first-token\n").unwrap();
    let registry = Kuik::registry(data.path(), &["--token-file", file.to_str().unwrap()]).await;
    let reference = format!("{}/team/app:v1", registry.host());

    let layout = tempfile::tempdir().unwrap();
    image.write_layout(layout.path(), "it").unwrap();
    let source = format!("oci:{}:it", layout.path().display());
    let destination = format!("docker://{reference}");
    let tried = async |arguments: &[&str]| {
        let mut all = vec!["copy", "--all", "--preserve-digests", "--dest-tls-verify=false"];
        all.extend(arguments);
        all.extend([source.as_str(), &destination]);
        skopeo(all).await
    };
    assert!(tried(&["--dest-no-creds"]).await.is_err(), "a push without the token must fail");
    assert!(tried(&["--dest-creds", "any:a-wrong-token"]).await.is_err());
    assert_eq!(get(registry.address(), "/v2/team/app/tags/list").await.status, 404);
    tried(&["--dest-creds", "any:the-first-token"]).await.unwrap();
    // Reads are open: the client has no credentials.
    pull_with_skopeo(&reference, &image).await;

    std::fs::write(&file, "the-second-token\n").unwrap();
    let status = async |token: &str| {
        let headers = format!("Authorization: Bearer {token}\r\n");
        let begun = Transfer::begin(registry.address(), "POST", "/v2/team/app/blobs/uploads/", &headers);
        begun.await.status
    };
    eventually("the second token holds", async || status("the-second-token").await == 202).await;
    assert_eq!(status("the-first-token").await, 401);
    assert!(!registry.log().contains("-token\""), "{}", registry.log());
}

#[tokio::test]
async fn pushes_are_refused_without_a_token_file() {
    let data = tempfile::tempdir().unwrap();
    let registry = Kuik::registry(data.path(), &[]).await;
    for (method, path) in [
        ("POST", "/v2/app/blobs/uploads/"),
        ("PUT", "/v2/app/manifests/v1"),
        ("DELETE", "/v2/app/manifests/v1"),
    ] {
        let refused = crate::support::ask(registry.address(), method, path).await;
        assert_eq!(refused.status, 403, "{method} {path}");
        assert!(String::from_utf8_lossy(&refused.body).contains("DENIED"));
    }
    assert_eq!(get(registry.address(), "/v2/").await.status, 200);
    assert_eq!(get(registry.address(), "/readyz").await.status, 200);
}

#[tokio::test]
async fn a_cache_of_others_can_be_pushed_to() {
    let (theirs, ours) = (SampleImage::small(25), SampleImage::small(26));
    let mut upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    push(&theirs, &format!("{}/app:v1", upstream.host()), &[]).await;
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--allow-anonymous-push", "--pull-through", "--insecure-registries", &upstream.host()];
    let registry = Kuik::registry(data.path(), &arguments).await;
    let name = format!("{}/{}", registry.host(), proxied(&upstream.host(), "app"));
    pull_with_skopeo(&format!("{name}:v1"), &theirs).await;
    push(&ours, &format!("{name}:v2"), &[]).await;
    upstream.stop().await.unwrap();
    pull_with_skopeo(&format!("{name}:v1"), &theirs).await;
    pull_with_skopeo(&format!("{name}:v2"), &ours).await;
}

/// Sends a whole blob in one request; returns the status and the body.
async fn send_blob(registry: &Kuik, bytes: &[u8]) -> (u16, String) {
    let target = format!("/v2/app/blobs/uploads/?digest={}", Digest::sha256(bytes));
    let mut request = format!(
        "POST {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    )
    .into_bytes();
    request.extend_from_slice(bytes);
    let answer = Transfer::raw(registry.address(), &request).await.answer().await;
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

fn used(folder: &Path) -> u64 {
    let status = rustix::fs::statvfs(folder).unwrap();
    (status.f_blocks - status.f_bfree) * status.f_frsize
}

#[tokio::test]
async fn a_full_disk_refuses_a_push_and_nothing_is_torn() {
    let disk = Tmpfs::mount(2).await;
    let registry = Kuik::registry(disk.path(), OPEN).await;
    let (small, large) = (vec![1; 500_000], vec![2; 2_500_000]);
    assert_eq!(send_blob(&registry, &small).await.0, 201);
    let before = used(disk.path());
    let (status, body) = send_blob(&registry, &large).await;
    assert_eq!(status, 507, "{body}");
    assert!(body.contains("INSUFFICIENT_STORAGE"), "{body}");
    eventually("the space comes back", async || used(disk.path()) <= before + 64_000).await;
    assert!(!blob_data(disk.path(), &Digest::sha256(&large)).exists());

    let path = format!("/v2/app/blobs/{}", Digest::sha256(&small));
    assert_eq!(get(registry.address(), &path).await.body, small);
    assert_eq!(send_blob(&registry, &[3; 400_000]).await.0, 201, "there is space for what fits");
}
