//! `kuik-registry --max-size` as people run it: more is pulled than fits, and what is needed stays.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod support;

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use kuik_core::{
    content::{Digest, Manifest},
    testkit::{
        SampleImage,
        real::{DockerRegistry, RegistryOptions},
    },
};
use support::{Answer, Kuik, Transfer, ask, blob_data, eventually, get, proxied, pull_with_skopeo, push};

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

    let mark = |number: usize| format!("/kuik/v1/marks/{}/v1", name(number));
    let bearer = "Authorization: Bearer s3cret\r\n";
    assert_eq!(send(&registry, "PUT", &mark(0), "", b"{\"pinned\":true}").await.status, 401);
    for no_mark in ["{\"pinned\":1}", "[true]", "[]", "true", "{\"pin\":true}", ""] {
        assert_eq!(
            send(&registry, "PUT", &mark(0), bearer, no_mark.as_bytes()).await.status,
            400,
            "{no_mark}"
        );
    }
    assert_eq!(get(registry.address(), &mark(0)).await.status, 404);
    assert_eq!(send(&registry, "PUT", &mark(0), bearer, b"{\"pinned\":true}").await.status, 204);
    let expired = b"{\"expiresAt\":\"2020-01-01T00:00:00Z\"}";
    assert_eq!(send(&registry, "PUT", &mark(3), bearer, expired).await.status, 204);
    assert_eq!(get(registry.address(), &mark(3)).await.body, expired);

    pull(4).await;
    // What was written a moment ago stays: it may take more than one pull until something is kept.
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
        assert!(has(data.path(), &images[number]), "app-{number} is pinned, or was pulled lately");
    }
    assert!(!has(data.path(), &images[2]), "it was pulled least recently");
    pull(3).await;

    // Marks and pulls outlive the process.
    registry.terminate();
    assert!(registry.ended().await.success());
    let registry = Kuik::registry(data.path(), &arguments).await;
    assert_eq!(get(registry.address(), &mark(0)).await.body, b"{\"pinned\":true}");
    let note = std::fs::read_to_string(notes.join("pulls")).unwrap();
    assert!(note.contains(&minute.to_string()), "the later time stays: {note}");
    assert_eq!(send(&registry, "DELETE", &mark(0), bearer, b"").await.status, 204);
    assert_eq!(get(registry.address(), &mark(0)).await.status, 404);
}

#[tokio::test]
async fn where_nothing_may_go_a_push_is_refused_and_pulls_go_on() {
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
    let mark = format!("/kuik/v1/marks/{}/v1", name("one"));
    assert_eq!(send(&registry, "PUT", &mark, "", b"{\"pinned\":true}").await.status, 204);
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
