//! A node: pulls the image as container engines do, and verifies every byte.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kuik_core::{
    content::{
        ByteRange, ContentSource as _, DecodedManifest, Descriptor, Digest, Freshness, Manifest, TagOrDigest,
        Verifier,
    },
    reference::RepositoryName,
    registry::{RegistryClient, Upstreams},
};

use super::{Failure, REGISTRY, REPOSITORY, TAG};

/// Something that was pulled.
#[derive(Debug, Clone)]
pub(super) struct Pulled {
    pub what: String,
    pub digest: Digest,
    pub bytes: u64,
    pub first_byte: Duration,
    pub took: Duration,
}

impl Pulled {
    /// What has to be the same, wherever it was pulled from.
    pub(super) fn identity(&self) -> (&str, &Digest, u64) {
        (&self.what, &self.digest, self.bytes)
    }
}

/// Pulls every platform of the image through the cache on `port`.
pub(super) async fn pull(port: u16) -> Result<Vec<Pulled>, Failure> {
    let authority = format!("127.0.0.1:{port}");
    let upstreams = Upstreams::default().insecure(&authority).map_err(Failure::new)?;
    let client = super::client_of(upstreams)?;
    let repository =
        RepositoryName::new(&authority, &format!("{REGISTRY}/{REPOSITORY}")).map_err(Failure::new)?;
    let mut node = Node { client, repository, pulled: Vec::new() };

    let tag = TagOrDigest::Tag(TAG.parse().map_err(Failure::new)?);
    let index = node.manifest(format!("index {TAG}"), &tag).await?;
    let DecodedManifest::Index(index) = index.decode().map_err(Failure::new)? else {
        return Err(Failure::new("the tag does not name an index"));
    };
    for entry in &index.manifests {
        let platform =
            entry.platform.as_ref().map(|it| format!("{}/{}", it.os, it.architecture)).unwrap_or_default();
        let at = TagOrDigest::Digest(entry.digest.clone());
        let manifest = node.manifest(format!("manifest {platform}"), &at).await?;
        let DecodedManifest::Image(image) = manifest.decode().map_err(Failure::new)? else {
            return Err(Failure::new("the index does not name images"));
        };
        node.blob(format!("config {platform}"), &image.config).await?;
        for layer in &image.layers {
            node.blob("layer".to_owned(), layer).await?;
        }
    }
    Ok(node.pulled)
}

struct Node {
    client: RegistryClient,
    repository: RepositoryName,
    pulled: Vec<Pulled>,
}

impl Node {
    async fn manifest(&mut self, what: String, at: &TagOrDigest) -> Result<Manifest, Failure> {
        let start = Instant::now();
        let manifest = self
            .client
            .manifest(&self.repository, at, Freshness::Cached)
            .await
            .map_err(Failure::new)?
            .content;
        let (digest, bytes) = (manifest.digest().clone(), manifest.bytes().len() as u64);
        let took = start.elapsed();
        self.pulled.push(Pulled { what, digest, bytes, first_byte: took, took });
        Ok(manifest)
    }

    /// Pulls a blob, unless this node has it already.
    async fn blob(&mut self, what: String, descriptor: &Descriptor) -> Result<(), Failure> {
        let digest = descriptor.digest.clone();
        if self.pulled.iter().any(|pulled| pulled.digest == digest) {
            return Ok(());
        }
        let mut verifier =
            Verifier::new(&digest).ok_or_else(|| Failure::new("the digest cannot be verified"))?;
        let start = Instant::now();
        let blob =
            self.client.blob(&self.repository, &digest, ByteRange::Full).await.map_err(Failure::new)?;
        let mut body = blob.content.body;
        let mut first_byte = None;
        while let Some(chunk) = body.next().await {
            first_byte.get_or_insert_with(|| start.elapsed());
            verifier.update(&chunk.map_err(Failure::new)?);
        }
        let bytes = verifier.finish().map_err(Failure::new)?.size();
        let took = start.elapsed();
        self.pulled.push(Pulled { what, digest, bytes, first_byte: first_byte.unwrap_or(took), took });
        Ok(())
    }
}
