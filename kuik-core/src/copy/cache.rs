//! Target cache: a registry that stores images under their encoded names.

use std::{num::NonZeroUsize, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use lru::LruCache;
use parking_lot::Mutex;

use super::{
    CopyError, Platforms, Room, SourceImage, Verdict,
    parts::{self, PartsError},
};
use crate::{
    client::{Capacity, MakeRoom, RegistryClient},
    content::{
        CacheStatus, ContentSource as _, Digest, EncodedNames, Freshness, Manifest, MediaType, SourceError,
        SourceErrorKind, TagOrDigest,
    },
    reference::RepositoryName,
};

/// Concurrency limit of existence checks per image.
const MAX_CONCURRENT_CHECKS: usize = 4;
/// Number of images whose parts are remembered, so that a verification reads no manifest.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");

/// The target cache.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) client: RegistryClient,
    /// Whether it is a pull-through cache, so that its responses have to be distinguished by cache status.
    pub(super) is_pull_through: bool,
    known: Mutex<LruCache<Digest, Arc<Known>>>,
    /// Sizes of images that were copied or verified: how much room a missing one needs.
    sizes: Mutex<LruCache<SourceImage, u64>>,
}

/// Parts of an image.
#[derive(Debug)]
struct Known {
    platforms: Platforms,
    manifests: Vec<Digest>,
    blobs: Vec<Digest>,
    /// Size of all blobs.
    bytes: u64,
}

impl Cache {
    pub(super) fn new(client: RegistryClient, is_pull_through: bool) -> Self {
        let (known, sizes) = (Mutex::new(LruCache::new(CAPACITY)), Mutex::new(LruCache::new(CAPACITY)));
        Self { client, is_pull_through, known, sizes }
    }

    /// Returns the name of the image's repository in the cache.
    pub(super) fn repository(image: &SourceImage) -> Result<RepositoryName, CopyError> {
        match image.target() {
            Some(target) => Ok(target.clone()),
            None => EncodedNames::at_cache(image.repository()).map_err(CopyError::Cache),
        }
    }

    /// Checks that the image and all its wanted parts exist.
    pub(super) async fn verify(
        &self,
        image: &SourceImage,
        platforms: &Platforms,
    ) -> Result<Verdict, CopyError> {
        let repository = Self::repository(image)?;
        let tag = TagOrDigest::Tag(image.cache_tag().clone());
        // A pull-through cache has no own tag for an image referenced by digest.
        let at = if self.is_pull_through { image.at().clone() } else { tag };
        let missing = async |what: String| {
            // At least one byte: the size of an image that this process has never seen is unknown.
            let size = self.sizes.lock().get(image).copied();
            Ok(Verdict::Missing { what, room: self.room(image, &repository, size.unwrap_or(1)).await })
        };
        let found = self.client.resolve(&repository, &at, Freshness::OnlyIfCached).await;
        let Some(found) = self.present(found.map(|served| (served.content.digest, served.cache_status)))?
        else {
            return missing(format!("manifest {at}")).await;
        };
        if image
            .digest()
            .is_some_and(|digest| digest.algorithm_name() == found.algorithm_name() && *digest != found)
        {
            return missing(format!("manifest {} (the cached tag points to {found})", image.at())).await;
        }
        let Some(known) = self.known(&repository, &found, platforms).await? else {
            return missing(format!("a child manifest of {found}")).await;
        };
        self.note_size(image, known.bytes);
        let manifests = known.manifests.iter().filter(|digest| **digest != found);
        let manifests = manifests.map(|digest| (digest, true));
        let parts = manifests.chain(known.blobs.iter().map(|digest| (digest, false)));
        let checks: Vec<_> =
            parts.map(|(digest, manifest)| self.has(&repository, digest, manifest)).collect();
        let mut lacking = stream::iter(checks).buffer_unordered(MAX_CONCURRENT_CHECKS);
        while let Some(lacks) = lacking.try_next().await? {
            if let Some(what) = lacks {
                return missing(what).await;
            }
        }
        Ok(Verdict::Complete { digest: found, size: known.bytes })
    }

    /// Returns the parts of the image `digest`; `None` if the cache lacks one of its manifests.
    async fn known(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        platforms: &Platforms,
    ) -> Result<Option<Arc<Known>>, CopyError> {
        let remembered = self.known.lock().get(digest).cloned();
        if let Some(known) = remembered.filter(|known| known.platforms == *platforms) {
            return Ok(Some(known));
        }
        let at = TagOrDigest::Digest(digest.clone());
        let top = self.client.manifest(repository, &at, Freshness::OnlyIfCached).await;
        let Some(top) = self.present(top.map(|served| (served.content, served.cache_status)))? else {
            return Ok(None);
        };
        let parts = match parts::parts(&self.client, repository, top, platforms).await {
            Ok(parts) if self.is_pull_through && !parts.from_cache => return Ok(None),
            Ok(parts) => parts,
            Err(PartsError::NoPlatform(error)) => return Err(error.into()),
            Err(PartsError::Content(error)) => return self.present(Err(error)),
        };
        Ok(Some(self.remember(digest, &parts, platforms)))
    }

    /// Remembers the parts of the image `digest`.
    fn remember(&self, digest: &Digest, parts: &parts::Parts, platforms: &Platforms) -> Arc<Known> {
        let known = Arc::new(Known {
            platforms: platforms.clone(),
            manifests: parts.manifests.iter().map(|manifest| manifest.digest().clone()).collect(),
            blobs: parts.blobs.keys().cloned().collect(),
            bytes: parts.bytes(),
        });
        self.known.lock().put(digest.clone(), known.clone());
        known
    }

    /// Returns the description of the part if it is missing.
    async fn has(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        manifest: bool,
    ) -> Result<Option<String>, CopyError> {
        let (kind, found) = if manifest {
            let at = TagOrDigest::Digest(digest.clone());
            let found = self.client.resolve(repository, &at, Freshness::OnlyIfCached).await;
            ("manifest", found.map(|served| ((), served.cache_status)))
        } else {
            let found = self.client.blob_size(repository, digest).await;
            ("blob", found.map(|served| ((), served.cache_status)))
        };
        Ok(self.present(found)?.is_none().then(|| format!("{kind} {digest}")))
    }

    fn note_size(&self, image: &SourceImage, bytes: u64) {
        self.sizes.lock().put(image.clone(), bytes);
    }

    /// Returns whether the cache has room for this many bytes. It evicts only what no cluster needs, if it knows that.
    async fn room(&self, image: &SourceImage, repository: &RepositoryName, bytes: u64) -> Room {
        let ask = async |make_room| match self.client.capacity(repository, image, bytes, make_room).await {
            Ok(Some(Capacity { fits: true, .. })) => (Room::Free, false),
            Ok(Some(Capacity { fits: false, retention })) => (Room::Full, retention),
            // Requests for content report what is wrong with the cache.
            Ok(None) | Err(_) => (Room::Unknown, false),
        };
        match ask(MakeRoom::No).await {
            (Room::Full, true) if ask(MakeRoom::Evict).await.0 == Room::Free => Room::Free,
            (room, _) => room,
        }
    }

    /// Has the cache make room for what it lacks of an image, before anything is downloaded. A cache that cannot tell
    /// is assumed to have room.
    pub(super) async fn make_room(
        &self,
        image: &SourceImage,
        repository: &RepositoryName,
        parts: &parts::Parts,
    ) -> Result<(), CopyError> {
        let all = parts.bytes();
        self.note_size(image, all);
        match self.client.capacity(repository, image, all, MakeRoom::No).await {
            Ok(Some(Capacity { fits: false, .. })) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(CopyError::Cache(error)),
        }
        // Near its limit, the cache is asked for each part: most of them may be there.
        let checks: Vec<_> = parts
            .blobs
            .iter()
            .map(|(digest, size)| async move {
                Ok::<_, CopyError>(self.has(repository, digest, false).await?.map_or(0, |_| *size))
            })
            .collect();
        let checks = stream::iter(checks).buffer_unordered(MAX_CONCURRENT_CHECKS);
        let lacking = checks.try_fold(0_u64, async |sum, size| Ok(sum.saturating_add(size))).await?;
        if lacking == 0 {
            return Ok(());
        }
        match self.client.capacity(repository, image, lacking, MakeRoom::Evict).await {
            Ok(Some(Capacity { fits: false, .. })) => {
                Err(CopyError::CacheFull { what: format!("it has no room for {lacking} bytes") })
            }
            Ok(_) => Ok(()),
            Err(error) => Err(CopyError::Cache(error)),
        }
    }

    /// Returns the content if the cache itself stores it.
    ///
    /// A pull-through cache also answers for its upstream. Any error of upstream means that the cache does not store
    /// the content: otherwise it would not have sent a request there.
    pub(super) fn present<T>(
        &self,
        found: Result<(T, CacheStatus), SourceError>,
    ) -> Result<Option<T>, CopyError> {
        match found {
            Ok((found, CacheStatus::Cache | CacheStatus::Stale(_))) => Ok(Some(found)),
            Ok((found, _)) => Ok((!self.is_pull_through).then_some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if self.is_pull_through && answered(&error) => Ok(None),
            Err(error) => Err(CopyError::Cache(error)),
        }
    }

    /// Removes the image's tag.
    pub(super) async fn remove(&self, image: &SourceImage) -> Result<(), CopyError> {
        let repository = Self::repository(image)?;
        let tag = TagOrDigest::Tag(image.cache_tag().clone());
        match self.client.delete_manifest(&repository, &tag).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) if error.kind() == SourceErrorKind::Unsupported => {
                self.untag(&repository, image).await.map_err(CopyError::Cache)
            }
            removed => removed.map_err(CopyError::Cache),
        }
    }

    /// Removes a tag from a registry that deletes only manifests, with all their tags, as Docker's does before version
    /// 3. The tag is moved to a manifest that has no other tag, and that manifest is deleted.
    async fn untag(&self, repository: &RepositoryName, image: &SourceImage) -> Result<(), SourceError> {
        let tag = TagOrDigest::Tag(image.cache_tag().clone());
        match self.client.resolve(repository, &tag, Freshness::Cached).await {
            Err(error) if error.is_not_found() => return Ok(()),
            found => found?,
        };
        let nothing = empty_index(image)?;
        self.client.put_manifest(repository, &nothing, &tag).await?;
        let at = TagOrDigest::Digest(nothing.digest().clone());
        match self.client.delete_manifest(repository, &at).await {
            Err(error) if error.is_not_found() => Ok(()),
            removed => removed,
        }
    }
}

/// Returns whether there was a response at all.
fn answered(error: &SourceError) -> bool {
    !error.is_unreachable()
        && error.kind() != SourceErrorKind::TimedOut
        && error.kind() != SourceErrorKind::Forbidden
}

/// Returns an empty index whose bytes are unique to the tag.
fn empty_index(image: &SourceImage) -> Result<Manifest, SourceError> {
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_INDEX.as_str(),
        "manifests": [],
        "annotations": {"org.opencontainers.image.ref.name": image.to_string()},
    });
    Manifest::new(Some(&MediaType::OCI_INDEX), Bytes::from(index.to_string())).map_err(|error| {
        SourceError::caused_by(SourceErrorKind::Unsupported, format!("remove the tag of {image}"), error)
    })
}
