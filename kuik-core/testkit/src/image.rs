//! Sample images for registries and stores: an index, and for each platform a manifest, a configuration and layers as
//! tar archives, so that every client can pull and unpack them.
//!
//! Equal seeds give equal bytes, so that digests can be compared between runs.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
};

use bytes::Bytes;

use kuik_core::content::{Descriptor, Digest, ImageIndex, ImageManifest, Manifest, MediaType, Platform};

/// A multi-platform image with all its content.
#[derive(Debug, Clone)]
pub struct SampleImage {
    index: Manifest,
    manifests: Vec<Manifest>,
    layers: Vec<Descriptor>,
    blobs: BTreeMap<Digest, Bytes>,
}

/// Builder of a [`SampleImage`].
#[derive(Debug, Clone, Default)]
pub struct SampleImageBuilder {
    seed: u64,
    platforms: Vec<Platform>,
    layers: Vec<usize>,
    as_buildx: bool,
}

impl SampleImage {
    /// Starts an empty image.
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

    /// The index, which a tag points to.
    #[must_use]
    pub fn index(&self) -> &Manifest {
        &self.index
    }

    /// The manifests, one per platform, in the order of the platforms; then the attestations, if any.
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
    /// Returns an error if a file cannot be written.
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
    /// Sets the seed of the layers' bytes.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Adds a platform.
    #[must_use]
    pub fn platform(mut self, os: &str, architecture: &str) -> Self {
        let variant = (architecture == "arm64").then(|| "v8".to_owned());
        self.platforms.push(Platform { architecture: architecture.to_owned(), os: os.to_owned(), variant });
        self
    }

    /// Adds a layer to every platform: an archive of one file of `size` bytes, with different bytes per platform.
    #[must_use]
    pub fn layer(mut self, size: usize) -> Self {
        self.layers.push(size);
        self
    }

    /// Builds the image as `docker buildx build --push` does: with compressed layers, and an attestation for each
    /// platform, listed under the platform `unknown/unknown`.
    #[must_use]
    pub fn as_buildx(mut self) -> Self {
        self.as_buildx = true;
        self
    }

    /// Builds the image.
    #[must_use]
    pub fn build(self) -> SampleImage {
        let (seed, compress) = (self.seed, self.as_buildx);
        let mut image = Parts { seed, compress, layers: Vec::new(), blobs: BTreeMap::new() };
        let mut manifests = Vec::new();
        let mut listed = Vec::new();
        for platform in &self.platforms {
            let manifest = image.add_platform(platform, &self.layers);
            listed.push(Descriptor { platform: Some(platform.clone()), ..manifest.descriptor() });
            manifests.push(manifest);
        }
        let attested = if self.as_buildx { manifests.clone() } else { Vec::new() };
        for manifest in &attested {
            let attestation = image.add_attestation(manifest);
            listed.push(attestation_of(manifest.digest(), &attestation));
            manifests.push(attestation);
        }
        let index = encode(&MediaType::OCI_INDEX, &ImageIndex::new(listed));
        SampleImage { index, manifests, layers: image.layers, blobs: image.blobs }
    }
}

struct Parts {
    seed: u64,
    compress: bool,
    layers: Vec<Descriptor>,
    blobs: BTreeMap<Digest, Bytes>,
}

impl Parts {
    fn add_platform(&mut self, platform: &Platform, sizes: &[usize]) -> Manifest {
        let mut layers = Vec::new();
        let mut diffs = Vec::new();
        for (number, &size) in sizes.iter().enumerate() {
            self.seed = self.seed.wrapping_add(1);
            let layer = archive(&format!("layer-{number}"), &random_bytes(self.seed, size));
            diffs.push(Digest::sha256(&layer).to_string());
            let (kind, bytes) =
                if self.compress { (".tar+gzip", compressed(&layer)) } else { (".tar", layer) };
            let media_type = MediaType::from(format!("application/vnd.oci.image.layer.v1{kind}"));
            layers.push(self.add_blob(media_type, bytes));
        }
        self.layers.extend(layers.iter().cloned());
        let config = serde_json::json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "variant": platform.variant,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = self.add_blob(MediaType::OCI_CONFIG, config.to_string().into());
        encode(&MediaType::OCI_MANIFEST, &ImageManifest::new(config, layers))
    }

    /// Adds a buildx provenance attestation as an OCI artifact (`oci-artifact=true`; the older form, with a configuration
    /// that lists its statements as layers, fails crane's validation).
    fn add_attestation(&mut self, image: &Manifest) -> Manifest {
        let predicate = "https://slsa.dev/provenance/v0.2";
        let statement = serde_json::json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": predicate,
            "subject": [{"name": "sample", "digest": {"sha256": image.digest().encoded()}}],
            "predicate": {},
        });
        let media_type = MediaType::from("application/vnd.in-toto+json".to_owned());
        let mut layer = self.add_blob(media_type, statement.to_string().into());
        layer.annotations.insert("in-toto.io/predicate-type".to_owned(), predicate.to_owned());
        let empty = MediaType::from("application/vnd.oci.empty.v1+json".to_owned());
        let config = self.add_blob(empty, Bytes::from_static(b"{}"));
        let mut manifest = ImageManifest::new(config, vec![layer]);
        manifest.artifact_type = Some("application/vnd.docker.attestation.manifest.v1+json".to_owned());
        manifest.subject = Some(image.descriptor());
        encode(&MediaType::OCI_MANIFEST, &manifest)
    }

    fn add_blob(&mut self, media_type: MediaType, bytes: Bytes) -> Descriptor {
        let digest = Digest::sha256(&bytes);
        let descriptor = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
        self.blobs.insert(digest, bytes);
        descriptor
    }
}

/// Returns the descriptor of an image's attestation in an index.
fn attestation_of(image: &Digest, attestation: &Manifest) -> Descriptor {
    let unknown = || "unknown".to_owned();
    let mut listed = attestation.descriptor();
    listed.platform = Some(Platform { architecture: unknown(), os: unknown(), variant: None });
    listed.annotations.insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
    listed.annotations.insert("vnd.docker.reference.digest".to_owned(), image.to_string());
    listed
}

#[expect(clippy::expect_used, reason = "it encodes manifest types of kuik-core")]
fn encode(media_type: &MediaType, manifest: &impl serde::Serialize) -> Manifest {
    let bytes = serde_json::to_vec(manifest).expect("manifests can be encoded");
    Manifest::new(Some(media_type), bytes.into()).expect("an encoded manifest can be decoded")
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

#[expect(clippy::expect_used, reason = "writing to memory does not fail")]
fn compressed(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("the stream is in memory");
    encoder.finish().expect("the stream is in memory").into()
}

/// Returns incompressible bytes, deterministic for a seed (splitmix64).
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
    fn sample_image_is_deterministic_for_its_seed() {
        let image = SampleImage::small(7);
        assert_eq!(image.index().digest(), SampleImage::small(7).index().digest());
        assert_ne!(image.index().digest(), SampleImage::small(8).index().digest());
        assert_eq!((image.manifests().len(), image.layers().len(), image.blobs().len()), (2, 4, 6));
        assert!(image.blobs().iter().all(|(digest, bytes)| *digest == Digest::sha256(bytes)));
    }
}
