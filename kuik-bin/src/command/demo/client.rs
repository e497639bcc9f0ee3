//! Pull client: pulls the image as container engines do, and verifies every byte.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kuik_core::{
    client::{RegistryClient, Upstreams},
    content::{
        ByteRange, ContentSource as _, DecodedManifest, Descriptor, Digest, Freshness, Manifest, TagOrDigest,
        Verifier,
    },
    reference::RepositoryName,
};

use crate::cli_error::CliError;

use super::{REGISTRY, REPOSITORY, TAG};

/// A manifest or blob that was pulled.
#[derive(Debug, Clone)]
pub(super) struct Pulled {
    pub what: String,
    pub digest: Digest,
    pub bytes: u64,
    pub first_byte: Duration,
    pub took: Duration,
}

impl Pulled {
    /// Returns the parts that must be equal, whatever the source.
    pub(super) fn identity(&self) -> (&str, &Digest, u64) {
        (&self.what, &self.digest, self.bytes)
    }
}

/// Pulls every platform of the image through the cache on `port`.
pub(super) async fn pull(port: u16) -> Result<Vec<Pulled>, CliError> {
    let authority = format!("127.0.0.1:{port}");
    let upstreams = Upstreams::default().insecure(&authority).map_err(CliError::new)?;
    let client = super::client_of(upstreams)?;
    let repository =
        RepositoryName::new(&authority, &format!("{REGISTRY}/{REPOSITORY}")).map_err(CliError::new)?;
    let mut node = Node { client, repository, pulled: Vec::new() };

    let tag = TagOrDigest::Tag(TAG.parse().map_err(CliError::new)?);
    let index = node.manifest(format!("index {TAG}"), &tag).await?;
    let DecodedManifest::Index(index) = index.decode().map_err(CliError::new)? else {
        return Err(CliError::new("the tag does not name an index"));
    };
    for entry in &index.manifests {
        let platform =
            entry.platform.as_ref().map(|it| format!("{}/{}", it.os, it.architecture)).unwrap_or_default();
        let at = TagOrDigest::Digest(entry.digest.clone());
        let manifest = node.manifest(format!("manifest {platform}"), &at).await?;
        let DecodedManifest::Image(image) = manifest.decode().map_err(CliError::new)? else {
            return Err(CliError::new("the index does not name images"));
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
    async fn manifest(&mut self, what: String, at: &TagOrDigest) -> Result<Manifest, CliError> {
        let start = Instant::now();
        let manifest = self
            .client
            .manifest(&self.repository, at, Freshness::Cached)
            .await
            .map_err(CliError::new)?
            .content;
        let (digest, bytes) = (manifest.digest().clone(), manifest.bytes().len() as u64);
        let took = start.elapsed();
        self.pulled.push(Pulled { what, digest, bytes, first_byte: took, took });
        Ok(manifest)
    }

    /// Pulls a blob, unless this node has it already.
    async fn blob(&mut self, what: String, descriptor: &Descriptor) -> Result<(), CliError> {
        let digest = descriptor.digest.clone();
        if self.pulled.iter().any(|pulled| pulled.digest == digest) {
            return Ok(());
        }
        let mut verifier =
            Verifier::new(&digest).ok_or_else(|| CliError::new("the digest cannot be verified"))?;
        let start = Instant::now();
        let blob =
            self.client.blob(&self.repository, &digest, ByteRange::Full).await.map_err(CliError::new)?;
        let mut body = blob.content.body;
        let mut first_byte = None;
        while let Some(chunk) = body.next().await {
            first_byte.get_or_insert_with(|| start.elapsed());
            verifier.update(&chunk.map_err(CliError::new)?);
        }
        let bytes = verifier.finish().map_err(CliError::new)?.size();
        let took = start.elapsed();
        self.pulled.push(Pulled { what, digest, bytes, first_byte: first_byte.unwrap_or(took), took });
        Ok(())
    }
}
