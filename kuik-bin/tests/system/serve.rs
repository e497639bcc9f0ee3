//! `kuik serve` on one machine: it keeps to its size limit, collects garbage, and verifies what it stores.

use std::path::Path;

use crate::support::{Kuik, blob_data, eventually, get, proxied, pull_with_skopeo, push};
use kuik_core::content::{Digest, Manifest};
use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, RegistryOptions};

/// Room for three images of a mebibyte.
const LIMIT: u64 = 3_400_000;

/// Returns the bytes of content in a directory.
fn stored(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => stored(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(|entry| size(entry.unwrap())).sum()
}

/// Returns whether a data directory has all content of an image.
fn has(data: &Path, image: &SampleImage) -> bool {
    let manifests = image.manifests().iter().chain([image.index()]).map(Manifest::digest);
    image.blobs().keys().chain(manifests).all(|digest| blob_data(data, digest).exists())
}

#[tokio::test]
async fn serve_keeps_to_its_size_limit_and_serves_more_than_fits() {
    let upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let images: Vec<_> = (0..6)
        .map(|seed| SampleImage::builder().seed(seed).platform("linux", "amd64").layer(1 << 20).build())
        .collect();
    for (number, image) in images.iter().enumerate() {
        push(image, &format!("{}/app-{number}:v1", upstream.host()), &[]).await;
    }
    let data = tempfile::tempdir().unwrap();
    let (limit, host) = (LIMIT.to_string(), upstream.host());
    let arguments = ["--insecure-registries", &host, "--max-size", &limit];
    let mut kuik = Kuik::serve(data.path(), &arguments).await;
    let blobs = data.path().join("docker/registry/v2/blobs");
    for (number, image) in images.iter().enumerate() {
        let name = format!("{}/{}:v1", kuik.host(), proxied(&host, &format!("app-{number}")));
        // Recently written content stays, so it may take more than one pull until something is stored.
        eventually("a new image is kept", async || {
            pull_with_skopeo(&name, image).await;
            let stored = stored(&blobs);
            assert!(stored <= LIMIT, "{stored} bytes are stored after {number}");
            has(data.path(), image)
        })
        .await;
    }
    assert!(!has(data.path(), &images[0]), "the least recently pulled image is evicted");

    // The limit holds for what is found at the start, too.
    kuik.terminate();
    assert!(kuik.ended().await.success());
    let kuik = Kuik::serve(data.path(), &["--insecure-registries", &host, "--max-size", "1.5M"]).await;
    eventually("the smaller limit is kept to", async || stored(&blobs) <= 1_500_000).await;
    let name = format!("{}/{}:v1", kuik.host(), proxied(&host, "app-0"));
    pull_with_skopeo(&name, &images[0]).await;
}

#[tokio::test]
async fn serve_collects_garbage_and_quarantines_corrupt_content() {
    let upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let image = SampleImage::small(41);
    push(&image, &format!("{}/app:v1", upstream.host()), &[]).await;
    let data = tempfile::tempdir().unwrap();
    let host = upstream.host();
    let orphan = Digest::sha256(b"unreferenced");
    let path = blob_data(data.path(), &orphan);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, b"unreferenced").unwrap();

    let arguments = ["--insecure-registries", &host];
    let eager = ["--gc-interval", "50ms", "--gc-grace", "2s", "--scrub-interval", "50ms"];
    let kuik = Kuik::serve(data.path(), &[&arguments[..], &eager].concat()).await;
    eventually("unreferenced content is removed", async || !path.exists()).await;
    let name = format!("{}/{}:v1", kuik.host(), proxied(&host, "app"));
    eventually("the image is kept", async || {
        pull_with_skopeo(&name, &image).await;
        has(data.path(), &image)
    })
    .await;
    let layer = blob_data(data.path(), &image.layers()[0].digest);
    let mut bytes = std::fs::read(&layer).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&layer, bytes).unwrap();
    eventually("corrupt content is removed", async || !layer.exists()).await;
    pull_with_skopeo(&name, &image).await;
    let metrics = String::from_utf8(get(kuik.address(), "/metrics").await.body).unwrap();
    let runs =
        metrics.lines().find_map(|line| line.strip_prefix("kube_image_keeper_registry_gc_runs_total "));
    assert_ne!(runs, Some("0"), "{metrics}");
}
