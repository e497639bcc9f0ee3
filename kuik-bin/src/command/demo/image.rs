//! Image of the demonstration: an index of two platforms, each with a configuration and two layers, which are real
//! compressed tar archives. Both share the first layer, like images with a common base.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use kuik_core::content::{
    Descriptor, Digest, ImageIndex, ImageManifest, InvalidManifest, Manifest, MediaType, Platform,
};
use serde::Serialize;

use super::client::Pulled;

/// Size of the shared layer: enough to measure a transfer, small enough for a slow disk.
const BASE_BYTES: usize = 8 << 20;
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// The image in the form that registries store.
pub(super) struct DemoImage {
    pub index: Manifest,
    pub manifests: Vec<Manifest>,
    pub blobs: BTreeMap<Digest, Bytes>,
}

/// Error of building the image.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error("cannot write a layer")]
    Layer(#[from] io::Error),
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    #[error("the built manifest is invalid")]
    Manifest(#[from] InvalidManifest),
}

/// A compressed layer, and the digest of its uncompressed content.
struct Layer {
    descriptor: Descriptor,
    diff_id: Digest,
}

impl DemoImage {
    pub(super) fn build() -> Result<Self, BuildError> {
        let mut blobs = BTreeMap::new();
        let base = layer(&mut blobs, "usr/share/noise", &noise(BASE_BYTES))?;
        let mut manifests = Vec::new();
        let mut entries = Vec::new();
        for architecture in ARCHITECTURES {
            let greeting = format!("hello from linux/{architecture}\n");
            let own = layer(&mut blobs, "etc/greeting", greeting.as_bytes())?;
            let config = serde_json::json!({
                "architecture": architecture,
                "os": "linux",
                "config": { "Cmd": ["/bin/cat", "/etc/greeting"] },
                "rootfs": { "type": "layers", "diff_ids": [base.diff_id, own.diff_id] },
            });
            let config = add(&mut blobs, MediaType::OCI_CONFIG, serde_json::to_vec(&config)?.into());
            let manifest =
                manifest(&ImageManifest::new(config, vec![base.descriptor.clone(), own.descriptor]))?;
            let platform =
                Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None };
            entries.push(Descriptor { platform: Some(platform), ..manifest.descriptor() });
            manifests.push(manifest);
        }
        let index = manifest(&ImageIndex::new(entries))?;
        Ok(Self { index, manifests, blobs })
    }

    /// Returns whether `pulled` is exactly this image.
    pub(super) fn is_what(&self, pulled: &[Pulled]) -> bool {
        let manifests = self.manifests.iter().chain([&self.index]);
        let mut built: Vec<_> = manifests.map(|m| (m.digest().clone(), m.bytes().len() as u64)).collect();
        built.extend(self.blobs.iter().map(|(digest, bytes)| (digest.clone(), bytes.len() as u64)));
        let mut got: Vec<_> = pulled.iter().map(|thing| (thing.digest.clone(), thing.bytes)).collect();
        built.sort();
        got.sort();
        built == got
    }

    /// Returns the size of the image in bytes, each blob counted once.
    pub(super) fn bytes(&self) -> u64 {
        self.blobs.values().map(|blob| blob.len() as u64).sum()
    }
}

fn manifest(content: &impl Serialize) -> Result<Manifest, BuildError> {
    Ok(Manifest::new(None, serde_json::to_vec_pretty(content)?.into())?)
}

fn layer(blobs: &mut BTreeMap<Digest, Bytes>, path: &str, content: &[u8]) -> Result<Layer, BuildError> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, path, content)?;
    let archive = archive.into_inner()?;
    let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
    compressed.write_all(&archive)?;
    let descriptor = add(blobs, MediaType::OCI_LAYER_GZIP, compressed.finish()?.into());
    Ok(Layer { descriptor, diff_id: Digest::sha256(&archive) })
}

fn add(blobs: &mut BTreeMap<Digest, Bytes>, media_type: MediaType, content: Bytes) -> Descriptor {
    let descriptor = Descriptor::new(media_type, Digest::sha256(&content), content.len() as u64);
    blobs.insert(descriptor.digest.clone(), content);
    descriptor
}

/// Returns incompressible bytes: a xorshift generator with a fixed seed.
fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
