//! Small real images to put into a registry or a store: an index, and for each platform a manifest, a configuration
//! and layers that are tar archives, so that every client can pull and unpack them.
//!
//! The same seed makes the same bytes, so that digests can be compared between runs.

use std::{collections::BTreeMap, fs, io, path::Path};

use bytes::Bytes;

use crate::content::{Descriptor, Digest, ImageIndex, ImageManifest, Manifest, MediaType, Platform};

/// A multi-platform image, whole.
#[derive(Debug, Clone)]
pub struct SampleImage {
    index: Manifest,
    manifests: Vec<Manifest>,
    layers: Vec<Descriptor>,
    blobs: BTreeMap<Digest, Bytes>,
}

/// Says what the image is made of.
#[derive(Debug, Clone, Default)]
pub struct SampleImageBuilder {
    seed: u64,
    platforms: Vec<Platform>,
    layers: Vec<usize>,
}

impl SampleImage {
    /// An image of nothing yet.
    #[must_use]
    pub fn builder() -> SampleImageBuilder {
        SampleImageBuilder::default()
    }

    /// A small image for `linux/amd64` and `linux/arm64/v8` with two layers each.
    #[must_use]
    pub fn small(seed: u64) -> Self {
        Self::builder()
            .seed(seed)
            .platform("linux", "amd64")
            .platform("linux", "arm64")
            .layer(20_000)
            .layer(3_000)
            .build()
    }

    /// The index, which a tag names.
    #[must_use]
    pub fn index(&self) -> &Manifest {
        &self.index
    }

    /// The manifests, one a platform, in the order of the platforms.
    #[must_use]
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// The layers of all platforms.
    #[must_use]
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// Writes the image into `folder` as an OCI image layout under `tag`, as `skopeo copy oci:FOLDER:TAG` reads it.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write_layout(&self, folder: &Path, tag: &str) -> io::Result<()> {
        let blobs = folder.join("blobs").join("sha256");
        fs::create_dir_all(&blobs)?;
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(digest.encoded()), bytes)?;
        }
        for manifest in self.manifests.iter().chain([&self.index]) {
            fs::write(blobs.join(manifest.digest().encoded()), manifest.bytes())?;
        }
        let mut root = self.index.descriptor();
        root.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [root]});
        fs::write(folder.join("index.json"), index.to_string())?;
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    /// Every blob: configurations and layers.
    #[must_use]
    pub fn blobs(&self) -> &BTreeMap<Digest, Bytes> {
        &self.blobs
    }
}

impl SampleImageBuilder {
    /// What the bytes of the layers grow from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// One more platform.
    #[must_use]
    pub fn platform(mut self, os: &str, architecture: &str) -> Self {
        let variant = (architecture == "arm64").then(|| "v8".to_owned());
        self.platforms.push(Platform { architecture: architecture.to_owned(), os: os.to_owned(), variant });
        self
    }

    /// One more layer for every platform: an archive of one file of `size` bytes, other bytes for each platform.
    #[must_use]
    pub fn layer(mut self, size: usize) -> Self {
        self.layers.push(size);
        self
    }

    /// The image.
    #[must_use]
    pub fn build(self) -> SampleImage {
        let mut image = Parts { seed: self.seed, layers: Vec::new(), blobs: BTreeMap::new() };
        let mut manifests = Vec::new();
        let mut listed = Vec::new();
        for platform in &self.platforms {
            let manifest = image.add_platform(platform, &self.layers);
            listed.push(Descriptor { platform: Some(platform.clone()), ..manifest.descriptor() });
            manifests.push(manifest);
        }
        let index = encode(&MediaType::OCI_INDEX, &ImageIndex::new(listed));
        SampleImage { index, manifests, layers: image.layers, blobs: image.blobs }
    }
}

struct Parts {
    seed: u64,
    layers: Vec<Descriptor>,
    blobs: BTreeMap<Digest, Bytes>,
}

impl Parts {
    fn add_platform(&mut self, platform: &Platform, sizes: &[usize]) -> Manifest {
        let layers: Vec<Descriptor> = sizes
            .iter()
            .enumerate()
            .map(|(number, &size)| {
                self.seed = self.seed.wrapping_add(1);
                let layer = archive(&format!("layer-{number}"), &random_bytes(self.seed, size));
                let media_type = MediaType::from("application/vnd.oci.image.layer.v1.tar".to_owned());
                self.add_blob(media_type, layer)
            })
            .collect();
        self.layers.extend(layers.iter().cloned());
        // The layers are not compressed: each is its own diff.
        let config = serde_json::json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "variant": platform.variant,
            "config": {},
            "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|layer| layer.digest.as_str()).collect::<Vec<_>>(),
            },
        });
        let config = self.add_blob(MediaType::OCI_CONFIG, config.to_string().into());
        encode(&MediaType::OCI_MANIFEST, &ImageManifest::new(config, layers))
    }

    fn add_blob(&mut self, media_type: MediaType, bytes: Bytes) -> Descriptor {
        let digest = Digest::sha256(&bytes);
        let descriptor = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
        self.blobs.insert(digest, bytes);
        descriptor
    }
}

#[expect(clippy::expect_used, reason = "it encodes our own types, which are manifests")]
fn encode(media_type: &MediaType, manifest: &impl serde::Serialize) -> Manifest {
    let bytes = serde_json::to_vec(manifest).expect("manifests can be encoded");
    Manifest::new(Some(media_type), bytes.into()).expect("what was encoded can be decoded")
}

#[expect(clippy::expect_used, reason = "writing to memory does not fail")]
fn archive(name: &str, content: &[u8]) -> Bytes {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::with_capacity(content.len() + 4096));
    archive.append_data(&mut header, name, content).expect("the archive is in memory");
    archive.into_inner().expect("the archive is in memory").into()
}

/// Bytes that do not compress and are the same for the same seed (splitmix64).
#[must_use]
pub(super) fn random_bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_image() {
        let image = SampleImage::small(7);
        assert_eq!(image.index().digest(), SampleImage::small(7).index().digest());
        assert_ne!(image.index().digest(), SampleImage::small(8).index().digest());
        assert_eq!((image.manifests().len(), image.layers().len(), image.blobs().len()), (2, 4, 6));
        assert!(image.blobs().iter().all(|(digest, bytes)| *digest == Digest::sha256(bytes)));
    }
}
