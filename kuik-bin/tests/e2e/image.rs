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
        let folder = layout();
        let root = put_image(folder.path(), busybox, mark, None);
        Self::of(folder, root)
    }

    /// An index of the same image for amd64 and for arm64, whose content differs. Its digest is that of the index.
    pub(crate) fn multi_platform(busybox: &Path, mark: &str) -> Self {
        let folder = layout();
        let manifests = ["amd64", "arm64"].map(|architecture| {
            let mark = if architecture == "amd64" { mark.to_owned() } else { format!("{mark} of arm64") };
            let mut root = put_image(folder.path(), busybox, &mark, Some(architecture));
            root["platform"] = json!({"os": "linux", "architecture": architecture});
            root
        });
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        let (digest, size) = put(folder.path(), index.to_string().as_bytes());
        Self::of(folder, json!({"mediaType": media_type, "digest": digest, "size": size}))
    }

    /// The image of a layout with this root.
    fn of(folder: TempDir, mut root: Value) -> Self {
        let digest = root["digest"].as_str().unwrap().to_owned();
        root["annotations"] = json!({"org.opencontainers.image.ref.name": "it"});
        let index = json!({"schemaVersion": 2, "manifests": [root]});
        fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder, digest }
    }

    /// As skopeo names it.
    pub(crate) fn reference(&self) -> String {
        format!("oci:{}:it", self.folder.path().display())
    }
}

/// An empty layout.
fn layout() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
    folder
}

/// Adds a blob to a layout; returns its digest and size.
fn put(layout: &Path, bytes: &[u8]) -> (String, usize) {
    let digest = Digest::sha256(bytes);
    fs::write(layout.join("blobs/sha256").join(digest.encoded()), bytes).unwrap();
    (digest.to_string(), bytes.len())
}

/// Adds busybox with `mark` as the file `/mark` to a layout; returns the descriptor of its manifest.
fn put_image(layout: &Path, busybox: &Path, mark: &str, architecture: Option<&str>) -> Value {
    let read = |digest: &str| fs::read(busybox.join("blobs").join(digest.replace(':', "/"))).unwrap();
    let parse = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let index = parse(fs::read(busybox.join("index.json")).unwrap());
    let mut manifest = parse(read(index["manifests"][0]["digest"].as_str().unwrap()));
    let mut config = parse(read(manifest["config"]["digest"].as_str().unwrap()));
    let base = read(manifest["layers"][0]["digest"].as_str().unwrap());
    if let Some(architecture) = architecture {
        config["architecture"] = json!(architecture);
    }
    let (layer, size) = put(layout, &with_file(&base, "mark", mark));
    config["rootfs"]["diff_ids"] = json!([layer]);
    manifest["layers"][0]["digest"] = json!(layer);
    manifest["layers"][0]["size"] = json!(size);
    let (digest, size) = put(layout, config.to_string().as_bytes());
    manifest["config"]["digest"] = json!(digest);
    manifest["config"]["size"] = json!(size);
    let (digest, size) = put(layout, manifest.to_string().as_bytes());
    json!({"mediaType": manifest["mediaType"], "digest": digest, "size": size})
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
