//! Parts of an image: its wanted manifests and blobs.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::{CopyError, NoPlatform, Platforms};
use crate::{
    content::{
        CacheStatus, ContentSource, DecodedManifest, Descriptor, Digest, Freshness, ImageManifest, Manifest,
        SourceError, SourceErrorKind, TagOrDigest,
    },
    reference::RepositoryName,
};

/// Maximum nesting depth of indexes.
const MAX_DEPTH: usize = 3;
/// Maximum number of manifests of an image; the largest in practice have about fifty.
const MAX_MANIFESTS: usize = 1000;

/// The wanted parts of an image, dependencies first.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    pub(super) manifests: Vec<Manifest>,
    /// Every blob with its size.
    pub(super) blobs: BTreeMap<Digest, u64>,
    /// Whether an index lists manifests that are not wanted.
    pub(super) sparse: bool,
    /// Whether all manifests were cache hits, if read through a cache.
    pub(super) from_cache: bool,
}

impl Parts {
    /// Returns the size of all blobs.
    pub(super) fn bytes(&self) -> u64 {
        self.blobs.values().fold(0, |sum, size| sum.saturating_add(*size))
    }
}

/// Reads the manifests of an image below `top`.
pub(super) async fn parts(
    source: &dyn ContentSource,
    repository: &RepositoryName,
    top: Manifest,
    platforms: &Platforms,
) -> Result<Parts, PartsError> {
    let mut parts = Parts { from_cache: true, ..Parts::default() };
    add(&mut parts, source, repository, top, platforms, 0).await?;
    Ok(parts)
}

/// The parts of an image could not be read.
#[derive(Debug)]
pub(super) enum PartsError {
    Content(SourceError),
    NoPlatform(NoPlatform),
}

impl PartsError {
    /// Converts the error of a read from the image's source.
    pub(super) fn of_source(self) -> CopyError {
        match self {
            Self::Content(error) => CopyError::Source(error),
            Self::NoPlatform(error) => error.into(),
        }
    }
}

fn add<'a>(
    parts: &'a mut Parts,
    source: &'a dyn ContentSource,
    repository: &'a RepositoryName,
    manifest: Manifest,
    platforms: &'a Platforms,
    depth: usize,
) -> BoxFuture<'a, Result<(), PartsError>> {
    let invalid = |problem: String| {
        let attempted = format!("read manifest {} of {repository}: {problem}", manifest.digest());
        PartsError::Content(SourceError::new(SourceErrorKind::InvalidContent, attempted))
    };
    let too_much = (depth > MAX_DEPTH || parts.manifests.len() >= MAX_MANIFESTS)
        .then(|| invalid(format!("more than {MAX_DEPTH} nested indexes or {MAX_MANIFESTS} manifests")));
    let decoded = manifest.decode().map_err(|error| invalid(error.to_string()));
    Box::pin(async move {
        if let Some(error) = too_much {
            return Err(error);
        }
        match decoded? {
            DecodedManifest::Image(image) => parts.blobs.extend(blobs(&image)),
            DecodedManifest::Index(index) => {
                let chosen = match platforms.choose(&index) {
                    // A nested index without a wanted platform is skipped.
                    Err(_) if depth > 0 => Vec::new(),
                    chosen => chosen.map_err(PartsError::NoPlatform)?,
                };
                parts.sparse |= chosen.len() < index.manifests.len();
                for listed in chosen {
                    let child = fetch(source, repository, listed).await.map_err(PartsError::Content)?;
                    parts.from_cache &= child.1 != CacheStatus::Upstream;
                    add(parts, source, repository, child.0, platforms, depth + 1).await?;
                }
            }
        }
        if !parts.manifests.iter().any(|known| known.digest() == manifest.digest()) {
            parts.manifests.push(manifest);
        }
        Ok(())
    })
}

async fn fetch(
    source: &dyn ContentSource,
    repository: &RepositoryName,
    listed: &Descriptor,
) -> Result<(Manifest, CacheStatus), SourceError> {
    let at = TagOrDigest::Digest(listed.digest.clone());
    let served = source.manifest(repository, &at, Freshness::Cached).await?;
    Ok((served.content, served.cache_status))
}

/// Returns the blobs of an image, without non-distributable ones.
fn blobs(image: &ImageManifest) -> impl Iterator<Item = (Digest, u64)> + '_ {
    let kept = |layer: &&Descriptor| {
        let media_type = layer.media_type.as_str();
        !media_type.contains("nondistributable") && !media_type.contains(".foreign.")
    };
    let layers = image.layers.iter().filter(kept);
    std::iter::once(&image.config).chain(layers).map(|blob| (blob.digest.clone(), blob.size))
}
