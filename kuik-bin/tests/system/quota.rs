//! `kuik-registry --max-size` as people run it: more is pulled than fits, and what is needed stays.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::support::{
    Answer, Kuik, Transfer, ask, blob_data, eventually, get, proxied, pull_with_skopeo, push,
};
use kuik_core::{
    content::{Digest, Manifest, TagOrDigest},
    reference::RepositoryName,
    retention::{ImageRetention, RETENTION_PATH, RetentionDocument, etag},
};
use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, RegistryOptions};

/// Room for five images of a mebibyte.
const LIMIT: u64 = 5_600_000;

fn image(seed: u64) -> SampleImage {
    SampleImage::builder().seed(seed).platform("linux", "amd64").layer(1 << 20).build()
}

/// How many bytes of content are in a directory.
fn stored(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => stored(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(|entry| size(entry.unwrap())).sum()
}

/// Whether a data directory has an image whole.
fn has(data: &Path, image: &SampleImage) -> bool {
    let manifests = image.manifests().iter().chain([image.index()]).map(Manifest::digest);
    image.blobs().keys().chain(manifests).all(|digest| blob_data(data, digest).exists())
}

async fn send(registry: &Kuik, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    Transfer::raw(registry.address(), &[head.as_bytes(), body].concat()).await.answer().await
}

/// Returns a retention document with the tag `v1` of these repositories.
fn document(images: &[(String, ImageRetention)]) -> bytes::Bytes {
    let mut document = RetentionDocument::default();
    for (name, retention) in images {
        let tag = TagOrDigest::Tag("v1".parse().unwrap());
        document.insert(&RepositoryName::local(name).unwrap(), &tag, *retention);
    }
    document.to_json()
}

#[tokio::test]
async fn more_is_pulled_than_fits_and_what_is_needed_stays() {
    let upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let images: Vec<_> = (0..10).map(image).collect();
    for (number, image) in images.iter().enumerate() {
        push(image, &format!("{}/app-{number}:v1", upstream.host()), &[]).await;
    }
    let data = tempfile::tempdir().unwrap();
    let blobs = data.path().join("docker/registry/v2/blobs");
    let name = |number: usize| proxied(&upstream.host(), &format!("app-{number}"));
    // The second image will be pulled in ten minutes, says a note that an earlier process left.
    let notes = data.path().join(".kuik/notes").join(name(1)).join("_notes");
    std::fs::create_dir_all(&notes).unwrap();
    let minute = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60 + 10;
    let note = format!("{{\"{}\":{minute}}}", images[1].index().digest());
    std::fs::write(notes.join("pulls"), note).unwrap();

    let secrets = tempfile::tempdir().unwrap();
    let token = secrets.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let (limit, host, token) = (LIMIT.to_string(), upstream.host(), token.to_str().unwrap());
    let arguments =
        ["--pull-through", "--insecure-registries", &host, "--max-size", &limit, "--token-file", token];
    let mut registry = Kuik::registry(data.path(), &arguments).await;
    let pull = async |number: usize| {
        pull_with_skopeo(&format!("{}/{}:v1", registry.host(), name(number)), &images[number]).await;
        let stored = stored(&blobs);
        assert!(stored <= LIMIT, "{stored} bytes are kept");
    };
    let size = async || {
        let metrics = String::from_utf8(get(registry.address(), "/metrics").await.body).unwrap();
        let line =
            metrics.lines().find(|line| line.starts_with("kube_image_keeper_registry_store_size_bytes "));
        line.unwrap().split_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    for (number, image) in images.iter().enumerate().take(4) {
        pull(number).await;
        eventually("it is kept", async || has(data.path(), image)).await;
    }

    let (cluster, bearer) = (format!("{RETENTION_PATH}test"), "Authorization: Bearer s3cret\r\n");
    let text = document(&[
        (name(0), ImageRetention::in_use()),
        (name(3), ImageRetention::unused(Some(1))),
        (name(100), ImageRetention::in_use()),
    ]);
    assert_eq!(send(&registry, "PUT", &cluster, "", &text).await.status, 401);
    assert_eq!(send(&registry, "GET", &cluster, "", b"").await.status, 401);
    for no_document in ["", "[]", "true", "{}", "{\"repositories\":{\"App\":{}}}"] {
        let refused = send(&registry, "PUT", &cluster, bearer, no_document.as_bytes()).await;
        assert_eq!(refused.status, 400, "{no_document}");
    }
    let invalid = send(&registry, "PUT", &format!("{RETENTION_PATH}Not%20a%20name"), bearer, &text).await;
    assert_eq!(invalid.status, 400);
    assert_eq!(send(&registry, "HEAD", &cluster, bearer, b"").await.status, 404);
    assert_eq!(send(&registry, "PUT", &cluster, bearer, &text).await.status, 204);
    let known = send(&registry, "HEAD", &cluster, bearer, b"").await;
    assert_eq!((known.status, known.header("etag")), (200, etag(&text).as_str()));
    assert_eq!(send(&registry, "GET", &cluster, bearer, b"").await.body, text);

    pull(4).await;
    // Recently written content stays, so it may take more than one pull until something is stored.
    eventually("a new one is kept", async || {
        pull(5).await;
        has(data.path(), &images[5])
    })
    .await;
    assert!(!has(data.path(), &images[3]), "what has expired goes first");
    for (number, image) in images.iter().enumerate().skip(6) {
        eventually("a new one is kept", async || {
            pull(number).await;
            has(data.path(), image)
        })
        .await;
    }
    // Something may be going at this moment; and of two that keep one manifest at once both are counted.
    eventually("what is counted is what is there", async || {
        let there = stored(&blobs);
        (there..there + 10_000).contains(&size().await)
    })
    .await;
    for number in [0, 1] {
        assert!(has(data.path(), &images[number]), "app-{number} is in use, or was pulled lately");
    }
    assert!(!has(data.path(), &images[2]), "it was pulled least recently");
    pull(3).await;

    // Documents and pulls outlive the process.
    registry.terminate();
    assert!(registry.ended().await.success());
    let registry = Kuik::registry(data.path(), &arguments).await;
    assert_eq!(send(&registry, "GET", &cluster, bearer, b"").await.body, text);
    let note = std::fs::read_to_string(notes.join("pulls")).unwrap();
    assert!(note.contains(&minute.to_string()), "the later time stays: {note}");
    assert_eq!(send(&registry, "DELETE", &cluster, bearer, b"").await.status, 204);
    assert_eq!(send(&registry, "HEAD", &cluster, bearer, b"").await.status, 404);
}

#[tokio::test]
async fn tag_is_deleted_when_no_other_cluster_has_it() {
    let upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let image = image(31);
    push(&image, &format!("{}/app:v1", upstream.host()), &[]).await;
    let data = tempfile::tempdir().unwrap();
    let host = upstream.host();
    let arguments = ["--pull-through", "--insecure-registries", &host, "--allow-anonymous-push"];
    let registry = Kuik::registry(data.path(), &arguments).await;
    let name = proxied(&host, "app");
    pull_with_skopeo(&format!("{}/{name}:v1", registry.host()), &image).await;
    let tag = data.path().join("docker/registry/v2/repositories").join(&name).join("_manifests/tags/v1");
    eventually("it is kept", async || tag.exists()).await;
    for cluster in ["one", "other"] {
        let text = document(&[(name.clone(), ImageRetention::unused(Some(1)))]);
        let target = format!("{RETENTION_PATH}{cluster}");
        assert_eq!(send(&registry, "PUT", &target, "", &text).await.status, 204);
    }
    let target = format!("/v2/{name}/manifests/v1");
    let delete = async |cluster: &str| {
        send(&registry, "DELETE", &target, &format!("Kuik-Cluster: {cluster}\r\n"), b"").await
    };
    let refused = delete("one").await;
    assert_eq!((refused.status, refused.error_code().as_str()), (409, "TAG_RETAINED"));
    assert!(tag.exists());
    assert_eq!(delete("Not a name").await.status, 400);
    let released = document(&[]);
    assert_eq!(send(&registry, "PUT", &format!("{RETENTION_PATH}one"), "", &released).await.status, 204);
    assert_eq!(delete("other").await.status, 202, "its own document does not count");
    assert!(!tag.exists());
}

#[tokio::test]
async fn push_is_refused_if_nothing_can_be_evicted_and_pulls_continue() {
    let upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let (one, other) = (image(21), image(22));
    for (name, image) in [("one", &one), ("other", &other)] {
        push(image, &format!("{}/{name}:v1", upstream.host()), &[]).await;
    }
    let data = tempfile::tempdir().unwrap();
    let host = upstream.host();
    let arguments =
        ["--pull-through", "--insecure-registries", &host, "--max-size", "1.5M", "--allow-anonymous-push"];
    let registry = Kuik::registry(data.path(), &arguments).await;
    let name = |name: &str| proxied(&host, name);
    let pull = async |image: &SampleImage, of: &str| {
        pull_with_skopeo(&format!("{}/{}:v1", registry.host(), name(of)), image).await;
    };
    let text = document(&[(name("one"), ImageRetention::in_use())]);
    assert_eq!(send(&registry, "PUT", &format!("{RETENTION_PATH}test"), "", &text).await.status, 204);
    pull(&one, "one").await;
    eventually("it is kept", async || has(data.path(), &one)).await;

    let blob = vec![7; 1_000_000];
    let target = format!("/v2/{}/blobs/uploads/?digest={}", name("pushed"), Digest::sha256(&blob));
    let refused = send(&registry, "POST", &target, "", &blob).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (507, "INSUFFICIENT_STORAGE"));
    pull(&other, "other").await;
    assert!(has(data.path(), &one) && !has(data.path(), &other));
    assert_eq!(ask(registry.address(), "GET", "/readyz").await.status, 200);
    assert!(stored(&data.path().join("docker/registry/v2/blobs")) <= 1_500_000);
}
