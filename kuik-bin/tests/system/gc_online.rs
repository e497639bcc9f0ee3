//! Online garbage collection of `kuik-registry`: by interval, and by authorized request.

use crate::support::{Answer, Kuik, Transfer, blob_data, eventually, get, pull_with_skopeo, push};
use kuik_core::content::Digest;
use kuik_testkit::SampleImage;

const GC: &str = "/kuik/v1/gc";

/// A request with a token, which may be empty, and a body.
async fn send(kuik: &Kuik, method: &str, target: &str, token: &str, body: &[u8]) -> Answer {
    let address = kuik.address();
    let authorization =
        if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let length = body.len();
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    Transfer::raw(address, &request).await.answer().await
}

fn json(answer: &Answer) -> serde_json::Value {
    serde_json::from_slice(&answer.body).unwrap()
}

async fn metric(kuik: &Kuik, name: &str) -> String {
    let text = String::from_utf8(get(kuik.address(), "/metrics").await.body).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).to_owned()
}

#[tokio::test]
async fn gc_request_requires_the_token() {
    let data = tempfile::tempdir().unwrap();
    let token = data.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let store = data.path().join("store");
    let arguments = ["--token-file", token.to_str().unwrap(), "--gc-grace", "0s", "--gc-interval", "never"];
    let kuik = Kuik::registry(&store, &arguments).await;
    let image = SampleImage::small(31);
    push(&image, &format!("{}/app:v1", kuik.host()), &["--dest-creds", "any:s3cret"]).await;
    let orphan = Digest::sha256(b"nobody's");
    let path = format!("/v2/app/blobs/uploads/?digest={orphan}");
    assert_eq!(send(&kuik, "POST", &path, "s3cret", b"nobody's").await.status, 201);

    assert_eq!(send(&kuik, "POST", GC, "", b"").await.status, 401);
    assert_eq!(send(&kuik, "POST", GC, "guess", b"").await.status, 401);
    assert_eq!(send(&kuik, "GET", GC, "s3cret", b"").await.status, 405);
    assert_eq!(send(&kuik, "POST", "/kuik/v1/gc?dry-run=maybe", "s3cret", b"").await.status, 400);
    let dry = json(&send(&kuik, "POST", "/kuik/v1/gc?dry-run=true", "s3cret", b"").await);
    assert_eq!(dry["garbage"], serde_json::json!([{ "digest": orphan.as_str(), "size": 8 }]), "{dry}");
    assert!(blob_data(&store, &orphan).exists(), "a dry run removes nothing");
    assert_eq!(metric(&kuik, "kube_image_keeper_registry_gc_runs_total").await, "0");

    let done = json(&send(&kuik, "POST", GC, "s3cret", b"").await);
    assert_eq!(
        (&done["removed"], &done["reclaimedBytes"], &done["dryRun"]),
        (&1.into(), &8.into(), &false.into())
    );
    assert!(!blob_data(&store, &orphan).exists());
    assert_eq!(metric(&kuik, "kube_image_keeper_registry_gc_runs_total").await, "1");
    assert_eq!(metric(&kuik, "kube_image_keeper_registry_gc_reclaimed_bytes_total").await, "8");
    assert_eq!(metric(&kuik, "kube_image_keeper_registry_gc_failed_runs_total").await, "0");
    pull_with_skopeo(&format!("{}/app:v1", kuik.host()), &image).await;
}

#[tokio::test]
async fn garbage_goes_by_itself_while_the_registry_serves() {
    let data = tempfile::tempdir().unwrap();
    let arguments =
        ["--allow-anonymous-push", "--gc-interval", "50ms", "--gc-grace", "2s", "--gc-delete-untagged"];
    let kuik = Kuik::registry(data.path(), &arguments).await;
    let (kept, gone) = (SampleImage::small(32), SampleImage::small(33));
    for (image, name) in [(&kept, "kept"), (&gone, "gone")] {
        // The collector is as eager as it can be, and clients push a manifest after its blobs: they try again.
        let id = format!("{}/app:{name}", kuik.host());
        push_until_kept(image, &id).await;
    }
    let tag = send(&kuik, "DELETE", "/v2/app/manifests/gone", "", b"").await;
    assert_eq!(tag.status, 202);
    eventually("all of the deleted image is gone", || async {
        let manifests =
            gone.manifests().iter().chain([gone.index()]).map(kuik_core::content::Manifest::digest);
        let of_kept = |digest: &Digest| kept.blobs().contains_key(digest);
        !gone
            .blobs()
            .keys()
            .chain(manifests)
            .any(|digest| !of_kept(digest) && blob_data(data.path(), digest).exists())
    })
    .await;
    pull_with_skopeo(&format!("{}/app:kept", kuik.host()), &kept).await;
}

async fn push_until_kept(image: &SampleImage, destination: &str) {
    let folder = tempfile::tempdir().unwrap();
    image.write_layout(folder.path(), "it").unwrap();
    let source = format!("oci:{}:it", folder.path().display());
    let destination = format!("docker://{destination}");
    let arguments =
        ["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", source.as_str(), &destination];
    eventually("a push succeeds", || async { kuik_testkit::real::skopeo(arguments).await.is_ok() }).await;
}
