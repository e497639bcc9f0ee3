//! Push copier: pushes images into any OCI registry: kuik's own, Docker's, Harbor, zot.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use lru::LruCache;
use parking_lot::Mutex;

use super::{
    Copied, CopyError, ImageCopier, Platforms, Progress, SourceImage, Verdict, WantedPlatforms,
    cache::Cache,
    keyed_lock::KeyedLock,
    parts::{self, Parts},
    referrers::{self, Through},
};
use crate::{
    client::{PushError, RegistryClient},
    content::{
        Blob, ByteRange, Cached, ContentSource, Digest, Freshness, Manifest, SourceError, SourceErrorKind,
        TagOrDigest,
    },
    reference::RepositoryName,
};

/// Concurrency limit of blob copies per image.
const AT_A_TIME: usize = 3;
/// Number of blobs whose repository in the cache is remembered.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

/// Reads images from their source and pushes them into a cache.
///
/// Content that the cache has is not read from the source; blobs in another of its repositories are mounted. If the
/// cache rejects sparse indexes, as Docker's registry 2.8 does, the image is pushed with all its platforms: its digest
/// does not change.
#[derive(Debug)]
pub struct PushCopier {
    source: Arc<dyn ContentSource>,
    cache: Cache,
    platforms: Arc<dyn WantedPlatforms>,
    /// Repository of the cache into which a blob was pushed.
    places: Mutex<LruCache<Digest, RepositoryName>>,
    locks: KeyedLock,
}

impl PushCopier {
    /// Creates a copier from `source` into `cache`. The client of the cache needs push credentials and a long response
    /// timeout: a registry may take long to respond to the end of a large blob.
    #[must_use]
    pub fn new(
        source: Arc<dyn ContentSource>,
        cache: RegistryClient,
        platforms: Arc<dyn WantedPlatforms>,
    ) -> Self {
        let cache = Cache::new(cache, false);
        let places = Mutex::new(LruCache::new(CAPACITY));
        Self { source, cache, platforms, places, locks: KeyedLock::default() }
    }

    /// Pushes all parts into the cache, dependencies first; the last manifest gets the image's tag.
    async fn put(
        &self,
        image: &SourceImage,
        parts: &Parts,
        progress: &dyn Progress,
    ) -> Result<u64, CopyError> {
        let repository = Cache::repository(image)?;
        self.cache.make_room(image, &repository, parts).await?;
        let bytes = self.put_blobs(image, &repository, parts, progress).await?;
        let Some((top, below)) = parts.manifests.split_last() else { return Ok(bytes) };
        for manifest in below {
            self.put_manifest_once(&repository, manifest).await?;
        }
        let tag = TagOrDigest::Tag(image.cache_tag().clone());
        self.put_manifest(&repository, top, &tag).await?;
        if let Some(digest) = image.digest().filter(|digest| digest.algorithm_name() != "sha256") {
            // A tag resolves to the SHA-256 digest of its content.
            self.put_manifest(&repository, top, &TagOrDigest::Digest(digest.clone())).await?;
        }
        Ok(bytes)
    }

    /// Pushes blobs into the cache. After a failure no further blob is started, and running ones complete, to be reused
    /// next time.
    async fn put_blobs(
        &self,
        image: &SourceImage,
        repository: &RepositoryName,
        parts: &Parts,
        progress: &dyn Progress,
    ) -> Result<u64, CopyError> {
        progress.expects(parts.bytes());
        let failed = &AtomicBool::new(false);
        let blobs: Vec<_> = parts
            .blobs
            .iter()
            .map(|(digest, size)| async move {
                let _lock = self.locks.lock(digest).await;
                if failed.load(Ordering::Relaxed) {
                    return Ok(0);
                }
                let put = self.put_blob(image, repository, digest, *size).await;
                match &put {
                    Ok(_) => progress.advances(*size),
                    Err(_) => failed.store(true, Ordering::Relaxed),
                }
                put
            })
            .collect();
        let puts: Vec<Result<u64, CopyError>> =
            stream::iter(blobs).buffer_unordered(AT_A_TIME).collect().await;
        puts.into_iter().sum()
    }

    /// Pushes a blob into the cache if it is missing. Returns the number of bytes transferred.
    async fn put_blob(
        &self,
        image: &SourceImage,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
    ) -> Result<u64, CopyError> {
        let client = &self.cache.client;
        match client.blob_size(repository, digest).await {
            Ok(found) if found.content == size => return Ok(0),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(CopyError::Cache(error)),
        }
        let from = self.places.lock().get(digest).cloned();
        let from = from.filter(|from| from != repository);
        let read = || async {
            let Cached { content: Blob { body, .. }, .. } =
                self.source.blob(image.repository(), digest, ByteRange::Full).await?;
            Ok(body)
        };
        let sent = client.put_blob(repository, digest, size, from.as_ref(), read).await;
        sent.map_err(|error| match error {
            PushError::Content(error) => CopyError::Source(error),
            PushError::Registry(error) => CopyError::of_cache(error),
        })?;
        self.places.lock().put(digest.clone(), repository.clone());
        Ok(size)
    }

    /// Pushes a manifest into the cache. Returns whether the cache lists it as a referrer.
    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        at: &TagOrDigest,
    ) -> Result<bool, CopyError> {
        let _lock = self.locks.lock(manifest.digest()).await;
        let put = self.cache.client.put_manifest(repository, manifest, at).await;
        put.map(|kept| kept.lists_referrer).map_err(CopyError::of_cache)
    }

    /// Pushes a manifest into the cache if it is missing: rewriting it would disturb a concurrent push of an index that
    /// references it.
    async fn put_manifest_once(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
    ) -> Result<(), CopyError> {
        let _lock = self.locks.lock(manifest.digest()).await;
        let (client, at) = (&self.cache.client, TagOrDigest::Digest(manifest.digest().clone()));
        match client.resolve(repository, &at, Freshness::Cached).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => {
                client.put_manifest(repository, manifest, &at).await.map(drop).map_err(CopyError::of_cache)
            }
            Err(error) => Err(CopyError::Cache(error)),
        }
    }

    /// Copies the image's signatures and other referrers. They are optional: failures are recorded and skipped.
    async fn put_referrers(&self, image: &SourceImage, parts: &Parts, copied: &mut Copied) {
        let through = Through { source: &*self.source, repository: image.repository() };
        let found = referrers::find(through, parts).await;
        copied.skipped.extend(found.skipped);
        for referrer in found.referrers {
            let name = referrer.name.clone();
            match self.put_referrer(image, referrer).await {
                Ok(bytes) => copied.bytes += bytes,
                Err(error) => copied.skipped.push(format!("{name}: {}", error.chain())),
            }
        }
    }

    async fn put_referrer(
        &self,
        image: &SourceImage,
        referrer: referrers::Referrer,
    ) -> Result<u64, CopyError> {
        let repository = Cache::repository(image)?;
        let all = parts::parts(&*self.source, image.repository(), referrer.manifest, &Platforms::all()).await;
        let parts = all.map_err(parts::PartsError::of_source)?;
        let bytes = self.put_blobs(image, &repository, &parts, &()).await?;
        let mut listed = true;
        for manifest in &parts.manifests {
            let at = TagOrDigest::Digest(manifest.digest().clone());
            listed &= self.put_manifest(&repository, manifest, &at).await?;
        }
        let tags = referrer.tag.into_iter().map(|tag| (tag, parts.manifests.last().cloned()));
        let list = referrer.list.filter(|_| !listed).map(|(tag, list)| (tag, Some(list)));
        for (tag, manifest) in tags.chain(list) {
            let Some(manifest) = manifest else { continue };
            self.put_manifest(&repository, &manifest, &TagOrDigest::Tag(tag)).await?;
        }
        Ok(bytes)
    }
}

#[async_trait]
impl ImageCopier for PushCopier {
    async fn resolve_upstream(&self, image: &SourceImage) -> Result<Digest, CopyError> {
        let found = self.source.resolve(image.repository(), image.at(), Freshness::Revalidate).await;
        found.map(|served| served.content.digest).map_err(CopyError::Source)
    }

    async fn copy(&self, image: &SourceImage, progress: &dyn Progress) -> Result<Copied, CopyError> {
        let top = self.source.manifest(image.repository(), image.at(), Freshness::Revalidate).await;
        let top = top.map_err(CopyError::Source)?.content;
        let digest = top.digest().clone();
        let platforms = self.platforms.wanted();
        let chosen = parts::parts(&*self.source, image.repository(), top.clone(), &platforms).await;
        let mut parts = chosen.map_err(parts::PartsError::of_source)?;
        let bytes = match self.put(image, &parts, progress).await {
            Err(CopyError::Cache(error)) if parts.sparse && rejects_sparse_index(&error) => {
                tracing::info!(%image, error = error.chain(), "cache rejects sparse indexes, pushing all platforms");
                let whole = parts::parts(&*self.source, image.repository(), top, &Platforms::all()).await;
                parts = whole.map_err(parts::PartsError::of_source)?;
                self.put(image, &parts, progress).await?
            }
            put => put?,
        };
        let mut copied = Copied { size: parts.bytes(), ..Copied::new(digest, bytes) };
        self.put_referrers(image, &parts, &mut copied).await;
        Ok(copied)
    }

    async fn verify(&self, image: &SourceImage) -> Result<Verdict, CopyError> {
        self.cache.verify(image, &self.platforms.wanted()).await
    }

    async fn remove(&self, image: &SourceImage) -> Result<(), CopyError> {
        self.cache.remove(image).await
    }
}

/// Returns whether a registry may have rejected an index because some of its manifests are missing.
fn rejects_sparse_index(error: &SourceError) -> bool {
    matches!(error.kind(), SourceErrorKind::NotFound | SourceErrorKind::Unsupported)
}
