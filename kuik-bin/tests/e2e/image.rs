//! Images that run, each with content of its own: busybox with a mark in it, so that no node has its layer already.

use std::{fs, path::Path};

use kuik_core::content::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

/// An image in a layout of its own.
pub(crate) struct Image {
    folder: TempDir,
    /// The digest of its manifest.
    pub(crate) digest: String,
}

impl Image {
    /// busybox of the layout in `busybox`, and `mark` as the file `/mark`.
    pub(crate) fn marked(busybox: &Path, mark: &str) -> Self {
        let read = |digest: &str| fs::read(busybox.join("blobs").join(digest.replace(':', "/"))).unwrap();
        let parse = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let index = parse(fs::read(busybox.join("index.json")).unwrap());
        let mut manifest = parse(read(index["manifests"][0]["digest"].as_str().unwrap()));
        let mut config = parse(read(manifest["config"]["digest"].as_str().unwrap()));
        let base = read(manifest["layers"][0]["digest"].as_str().unwrap());

        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        let put = |bytes: &[u8]| {
            let digest = Digest::sha256(bytes);
            fs::write(folder.path().join("blobs/sha256").join(digest.encoded()), bytes).unwrap();
            (digest.to_string(), bytes.len())
        };
        let layer = with_file(&base, "mark", mark);
        let (digest, size) = put(&layer);
        config["rootfs"]["diff_ids"] = json!([digest]);
        manifest["layers"][0]["digest"] = json!(digest);
        manifest["layers"][0]["size"] = json!(size);
        let (digest, size) = put(config.to_string().as_bytes());
        manifest["config"]["digest"] = json!(digest);
        manifest["config"]["size"] = json!(size);
        let (digest, size) = put(manifest.to_string().as_bytes());
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": manifest["mediaType"], "digest": digest, "size": size,
            "annotations": {"org.opencontainers.image.ref.name": "it"},
        }]});
        fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder, digest }
    }

    /// As skopeo names it.
    pub(crate) fn reference(&self) -> String {
        format!("oci:{}:it", self.folder.path().display())
    }
}

/// The archive `base` with one more file.
fn with_file(base: &[u8], name: &str, content: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(base);
    let mut builder = tar::Builder::new(Vec::new());
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header().clone();
        builder.append(&header, entry).unwrap();
    }
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}
