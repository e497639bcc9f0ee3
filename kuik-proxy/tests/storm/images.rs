//! Endless sequence of images that share layers with their neighbors, generated from a seed.

use bytes::Bytes;
use kuik_core::content::{Digest, Manifest, MediaType};
use kuik_testkit::ScriptedRegistry;

use crate::seeded_rng::SeededRng;

/// Number of layers per image. It shares all but one with the next.
const LAYERS: u64 = 4;

/// A complete image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) tag: String,
    pub(crate) manifest: Manifest,
    pub(crate) blobs: Vec<(Digest, Bytes)>,
}

/// The image with that number.
pub(crate) fn image(seed: u64, number: u64) -> Image {
    let blobs: Vec<_> = (number..number + LAYERS).map(|layer| blob(seed, layer)).collect();
    let layers: Vec<_> = blobs
        .iter()
        .map(|(digest, bytes)| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest.to_string(),
                "size": bytes.len(),
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST.as_str(),
        "config": layers[0],
        "layers": layers[1..],
    });
    let manifest = Manifest::new(None, manifest.to_string().into()).unwrap();
    Image { tag: format!("v{number}"), manifest, blobs }
}

/// A blob of up to 400,000 bytes; one in eight is tiny.
fn blob(seed: u64, number: u64) -> (Digest, Bytes) {
    let mut rng = SeededRng::new(seed ^ number.wrapping_mul(0xD134_2543_DE82_EF95));
    let size = if rng.percent(12) { rng.within(1..2000) } else { rng.within(20_000..400_000) };
    let bytes = rng.bytes(size);
    (Digest::sha256(&bytes), bytes)
}

impl Image {
    pub(crate) fn add_to(&self, registry: &ScriptedRegistry) {
        registry.add_manifest("app", Some(&self.tag), &self.manifest);
        for (_, bytes) in &self.blobs {
            registry.add_blob("app", bytes.clone());
        }
    }
}
