//! Sample images on their way: pushed into a registry by skopeo, pulled by it, and compared byte for byte.

use std::path::{Path, PathBuf};

use kuik_core::{content::Digest, reference::RepositoryName};
use kuik_testkit::{SampleImage, real::skopeo};

/// Returns the name of `path` of the registry at `host` below `/v2/` of a proxy.
pub(crate) fn proxied(host: &str, path: &str) -> String {
    RepositoryName::new(host, path).unwrap().encoded().unwrap()
}

/// Returns the path of a blob in a proxy.
pub(crate) fn blob_path(host: &str, path: &str, digest: &Digest) -> String {
    format!("/v2/{}/blobs/{digest}", proxied(host, path))
}

/// The file that holds a published blob of a cache.
pub(crate) fn blob_data(data_dir: &Path, digest: &Digest) -> PathBuf {
    let encoded = digest.encoded();
    data_dir.join("docker/registry/v2/blobs/sha256").join(&encoded[..2]).join(encoded).join("data")
}

/// Pushes an image with all its platforms, without changing a digest.
pub(crate) async fn push(image: &SampleImage, destination: &str, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    image.write_layout(folder.path(), "it").unwrap();
    let source = format!("oci:{}:it", folder.path().display());
    let destination = format!("docker://{destination}");
    let mut all = vec!["copy", "--all", "--preserve-digests", "--dest-tls-verify=false"];
    all.extend(arguments);
    all.extend([source.as_str(), &destination]);
    skopeo(all).await.unwrap_or_else(|error| panic!("{error}"));
}

/// Pulls an image with all its platforms from a registry without TLS, and compares it with what it has to be.
pub(crate) async fn pull_with_skopeo(reference: &str, image: &SampleImage) {
    let folder = tempfile::tempdir().unwrap();
    let source = format!("docker://{reference}");
    let destination = format!("oci:{}:it", folder.path().display());
    let arguments =
        ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", source.as_str(), &destination];
    skopeo(arguments).await.unwrap_or_else(|error| panic!("{reference}: {error}"));
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], image.index().digest().as_str(), "{reference}");
    assert_layout(&folder.path().join("blobs/sha256"), image);
}

/// Asserts that `folder` holds all of an image, each part in a file named by its digest in hex.
pub(crate) fn assert_layout(folder: &Path, image: &SampleImage) {
    let manifests = image.manifests().iter().chain([image.index()]);
    let parts = image.blobs().iter().chain(manifests.map(|manifest| (manifest.digest(), manifest.bytes())));
    for (digest, bytes) in parts {
        let pulled = std::fs::read(folder.join(digest.encoded()));
        assert!(pulled.is_ok_and(|pulled| pulled == *bytes), "{digest} is not what upstream has");
    }
}
