//! Prefetch copier: reads images through a pull-through cache, so that each is downloaded once.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::sleep;

use super::{
    Copied, CopyError, ImageCopier, Platforms, Progress, SourceImage, Verdict, WantedPlatforms,
    cache::Cache,
    parts::{self, Parts, PartsError},
    referrers::{self, Through},
};
use crate::{
    client::RegistryClient,
    content::{
        ByteRange, CacheStatus, Cached, ContentSource as _, Digest, Freshness, Manifest, SourceError,
        SourceErrorKind, TagOrDigest,
    },
    reference::RepositoryName,
};

/// Concurrency limit of blob reads per image.
const AT_A_TIME: usize = 3;
/// Pauses before each check that the cache has stored a blob. Its clients get the last byte before the blob is durable.
const STORING: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// Reads images through a pull-through cache (`kuik-registry --pull-through`).
///
/// A refresh is a request with `Cache-Control: no-cache`: the cache then revalidates the tag with the image's registry.
#[derive(Debug)]
pub struct PrefetchCopier {
    cache: Cache,
    platforms: Arc<dyn WantedPlatforms>,
}

impl PrefetchCopier {
    /// Creates a copier into `cache`. Its client needs push credentials, which removing a tag requires.
    #[must_use]
    pub fn new(cache: RegistryClient, platforms: Arc<dyn WantedPlatforms>) -> Self {
        Self { cache: Cache::new(cache, true), platforms }
    }

    /// Reads all blobs that are not in the cache yet.
    async fn read(
        &self,
        repository: &RepositoryName,
        parts: &Parts,
        progress: &dyn Progress,
    ) -> Result<u64, CopyError> {
        progress.expects(parts.bytes());
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
        // One request instead of HEAD and GET: on a miss, the cache would contact its upstream twice.
        let served = self.cache.client.blob(repository, digest, ByteRange::Full).await.map_err(attribute)?;
        if served.cache_status != CacheStatus::Upstream {
            progress.advances(served.content.size.unwrap_or_default());
            return Ok(0);
        }
        let (mut read, mut body) = (0, served.content.body);
        while let Some(bytes) = body.try_next().await.map_err(attribute)? {
            read += bytes.len() as u64;
            progress.advances(bytes.len() as u64);
        }
        if self.is_stored(repository, digest).await? {
            Ok(read)
        } else {
            Err(CopyError::CacheFull { what: format!("blob {digest} was not kept") })
        }
    }

    /// Returns whether the cache has stored a blob that was just read through it. A full cache passes content on
    /// without storing it.
    async fn is_stored(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, CopyError> {
        for pause in STORING {
            sleep(pause).await;
            let found = self.cache.client.blob_size(repository, digest).await;
            if self.cache.present(found.map(|served| ((), served.cache_status)))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads the image's signatures and other referrers. They are optional: failures are recorded and skipped.
    async fn read_referrers(
        &self,
        repository: &RepositoryName,
        image: &SourceImage,
        parts: &Parts,
        copied: &mut Copied,
    ) {
        let through = Through { source: &self.cache.client, repository };
        let found = referrers::find(through, parts).await;
        copied.skipped.extend(found.skipped);
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
                Err(error) => copied.skipped.push(format!("{name} of {image}: {}", error.chain())),
            }
        }
    }

    /// Tags an image referenced by digest, to protect it from garbage collection.
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
        let tag = TagOrDigest::Tag(image.cache_tag().clone());
        if let Err(error) = self.cache.client.put_manifest(repository, top, &tag).await {
            copied.skipped.push(format!("tag {tag}: {}", error.chain()));
        }
    }

    /// Returns the current manifest of the image, revalidated upstream.
    async fn current(&self, repository: &RepositoryName, image: &SourceImage) -> Result<Manifest, CopyError> {
        let served = self.cache.client.manifest(repository, image.at(), Freshness::Revalidate).await;
        confirmed(image, served.map_err(attribute)?)
    }
}

#[async_trait]
impl ImageCopier for PrefetchCopier {
    async fn resolve_upstream(&self, image: &SourceImage) -> Result<Digest, CopyError> {
        let repository = Cache::repository(image)?;
        let served = self.cache.client.resolve(&repository, image.at(), Freshness::Revalidate).await;
        Ok(confirmed(image, served.map_err(attribute)?)?.digest)
    }

    async fn copy(&self, image: &SourceImage, progress: &dyn Progress) -> Result<Copied, CopyError> {
        let repository = Cache::repository(image)?;
        let top = self.current(&repository, image).await?;
        let platforms = self.platforms.wanted();
        let parts = match parts::parts(&self.cache.client, &repository, top.clone(), &platforms).await {
            Ok(parts) => parts,
            Err(PartsError::Content(error)) => return Err(attribute(error)),
            Err(PartsError::NoPlatform(error)) => return Err(error.into()),
        };
        self.cache.make_room(image, &repository, &parts).await?;
        let bytes = self.read(&repository, &parts, progress).await?;
        let mut copied = Copied { size: parts.bytes(), ..Copied::new(top.digest().clone(), bytes) };
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

/// Returns content that the image's registry has confirmed. A stale tag served by the cache is an error.
fn confirmed<T>(image: &SourceImage, served: Cached<T>) -> Result<T, CopyError> {
    if let CacheStatus::Stale(kind) = served.cache_status {
        let (kind, problem) = match kind {
            SourceErrorKind::NotFound => (kind, "no longer found upstream (404)"),
            SourceErrorKind::Unauthorized | SourceErrorKind::Denied => (kind, "upstream denied access"),
            SourceErrorKind::RateLimited => (kind, "upstream rate limit reached (429)"),
            _ => (SourceErrorKind::Unavailable, "the cache could not reach upstream"),
        };
        let problem = format!("resolve {image} upstream: {problem}");
        return Err(CopyError::Source(SourceError::new(kind, problem)));
    }
    Ok(served.content)
}

/// Attributes an error: an error response of the cache is about the image's registry.
fn attribute(error: SourceError) -> CopyError {
    match error.kind() {
        SourceErrorKind::Storage | SourceErrorKind::TimedOut => CopyError::Cache(error),
        _ if error.is_unreachable() => CopyError::Cache(error),
        _ => CopyError::Source(error),
    }
}
