//! Copies by reading through a cache that fills itself: the image crosses the internet once, whoever asks for it.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Copied, CopyError, ImageCopier, Platforms, Progress, SourceImage, Verdict, WantedPlatforms,
    cache::Cache,
    parts::{self, Parts, PartsError},
    referrers::{self, Through},
};
use crate::{
    content::{
        ByteRange, ContentSource as _, Digest, Freshness, Manifest, Origin, Served, SourceError,
        SourceErrorKind, TagOrDigest,
    },
    reference::RepositoryName,
    registry::RegistryClient,
};

/// How many blobs of an image are read at a time.
const AT_A_TIME: usize = 3;

/// Reads images through a cache that fetches what it does not have (`kuik-registry --pull-through`).
///
/// A refresh reaches it as `Cache-Control: no-cache`: it asks the image's registry then, and fetches what has moved.
#[derive(Debug)]
pub struct WarmCopier {
    cache: Cache,
    platforms: Arc<dyn WantedPlatforms>,
}

impl WarmCopier {
    /// A copier into `cache`. Its client has what opens the cache for pushes, which removing a tag needs.
    #[must_use]
    pub fn new(cache: RegistryClient, platforms: Arc<dyn WantedPlatforms>) -> Self {
        Self { cache: Cache::new(cache, true), platforms }
    }

    /// Reads all blobs that the cache does not have yet.
    async fn read(
        &self,
        repository: &RepositoryName,
        parts: &Parts,
        progress: &dyn Progress,
    ) -> Result<u64, CopyError> {
        progress.expects(parts.blobs.values().sum());
        let blobs: Vec<_> =
            parts.blobs.keys().map(|digest| self.read_blob(repository, digest, progress)).collect();
        stream::iter(blobs)
            .buffer_unordered(AT_A_TIME)
            .try_fold(0, |sum, read| async move { Ok(sum + read) })
            .await
    }

    async fn read_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        progress: &dyn Progress,
    ) -> Result<u64, CopyError> {
        // One question, not two: a cache that does not have the blob would ask its registry both times.
        let served = self.cache.client.blob(repository, digest, ByteRange::Full).await.map_err(whose)?;
        if served.origin != Origin::Upstream {
            progress.advances(served.content.size.unwrap_or_default());
            return Ok(0);
        }
        let (mut read, mut body) = (0, served.content.body);
        while let Some(bytes) = body.try_next().await.map_err(whose)? {
            read += bytes.len() as u64;
            progress.advances(bytes.len() as u64);
        }
        Ok(read)
    }

    /// The image's signatures and other referrers, of which nothing is needed to run it.
    async fn read_referrers(
        &self,
        repository: &RepositoryName,
        image: &SourceImage,
        parts: &Parts,
        copied: &mut Copied,
    ) {
        let through = Through { source: &self.cache.client, repository };
        let found = referrers::find(through, parts).await;
        copied.without.extend(found.without);
        for referrer in found.referrers {
            let name = referrer.name;
            let all =
                parts::parts(&self.cache.client, repository, referrer.manifest, &Platforms::all()).await;
            let read = match all {
                Ok(parts) => self.read(repository, &parts, &()).await,
                Err(error) => Err(error.of_source()),
            };
            match read {
                Ok(bytes) => copied.bytes += bytes,
                Err(error) => copied.without.push(format!("{name} of {image}: {}", error.chain())),
            }
        }
    }

    /// An image that is asked for by its digest gets a tag, so that it is no garbage.
    async fn tag(
        &self,
        repository: &RepositoryName,
        image: &SourceImage,
        top: &Manifest,
        copied: &mut Copied,
    ) {
        if image.digest().is_none() {
            return;
        }
        let tag = TagOrDigest::Tag(image.kept_as().clone());
        if let Err(error) = self.cache.client.put_manifest(repository, top, &tag).await {
            copied.without.push(format!("the tag {tag}: {}", error.chain()));
        }
    }

    /// The image's manifest as its registry has it now.
    async fn current(&self, repository: &RepositoryName, image: &SourceImage) -> Result<Manifest, CopyError> {
        let served = self.cache.client.manifest(repository, image.at(), Freshness::Revalidate).await;
        confirmed(image, served.map_err(whose)?)
    }
}

#[async_trait]
impl ImageCopier for WarmCopier {
    async fn ask_source(&self, image: &SourceImage) -> Result<Digest, CopyError> {
        let repository = Cache::repository(image)?;
        let served = self.cache.client.resolve(&repository, image.at(), Freshness::Revalidate).await;
        Ok(confirmed(image, served.map_err(whose)?)?.digest)
    }

    async fn copy(&self, image: &SourceImage, progress: &dyn Progress) -> Result<Copied, CopyError> {
        let repository = Cache::repository(image)?;
        let top = self.current(&repository, image).await?;
        let platforms = self.platforms.wanted();
        let parts = match parts::parts(&self.cache.client, &repository, top.clone(), &platforms).await {
            Ok(parts) => parts,
            Err(PartsError::Content(error)) => return Err(whose(error)),
            Err(PartsError::NoPlatform(error)) => return Err(error.into()),
        };
        let bytes = self.read(&repository, &parts, progress).await?;
        let mut copied = Copied::new(top.digest().clone(), bytes);
        self.tag(&repository, image, &top, &mut copied).await;
        self.read_referrers(&repository, image, &parts, &mut copied).await;
        Ok(copied)
    }

    async fn verify(&self, image: &SourceImage) -> Result<Verdict, CopyError> {
        self.cache.verify(image, &self.platforms.wanted()).await
    }

    async fn remove(&self, image: &SourceImage) -> Result<(), CopyError> {
        self.cache.remove(image).await
    }
}

/// What the image's registry has confirmed. A tag that the cache serves unconfirmed says nothing about now.
fn confirmed<T>(image: &SourceImage, served: Served<T>) -> Result<T, CopyError> {
    if let Origin::Stale(kind) = served.origin {
        let (kind, problem) = match kind {
            SourceErrorKind::NotFound => (kind, "its registry has it no more (404)"),
            SourceErrorKind::Unauthorized | SourceErrorKind::Denied => (kind, "its registry refuses it"),
            SourceErrorKind::RateLimited => (kind, "its registry was asked too often (429)"),
            _ => (SourceErrorKind::Unavailable, "the cache could not ask its registry"),
        };
        let problem = format!("ask what {image} is now: {problem}");
        return Err(CopyError::Source(SourceError::new(kind, problem)));
    }
    Ok(served.content)
}

/// Whose trouble an error is: a cache that answers speaks of the image's registry.
fn whose(error: SourceError) -> CopyError {
    match error.kind() {
        SourceErrorKind::Storage | SourceErrorKind::TimedOut => CopyError::Cache(error),
        _ if error.is_unreachable() => CopyError::Cache(error),
        _ => CopyError::Source(error),
    }
}
