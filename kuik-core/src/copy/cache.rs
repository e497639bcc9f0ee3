//! The cache that images are put into: a registry that has them under their encoded names.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use lru::LruCache;

use super::{
    CopyError, Platforms, SourceImage, Verdict,
    parts::{self, PartsError},
};
use crate::{
    content::{
        CacheNames, ContentSource as _, Digest, Freshness, Manifest, MediaType, Origin, SourceError,
        SourceErrorKind, TagOrDigest,
    },
    reference::RepositoryName,
    registry::RegistryClient,
};

/// How many parts of an image are looked for at a time.
const LOOK_UPS: usize = 4;
/// Of how many images it is remembered what they are made of, so that a look into the cache reads no manifest.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");

/// The cache.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) client: RegistryClient,
    /// Whether it fetches what it does not have, so that its answers have to be told apart by where they came from.
    pub(super) fills_itself: bool,
    known: Mutex<LruCache<Digest, Arc<Known>>>,
}

/// What an image is made of.
#[derive(Debug)]
struct Known {
    platforms: Platforms,
    manifests: Vec<Digest>,
    blobs: Vec<Digest>,
}

impl Cache {
    pub(super) fn new(client: RegistryClient, fills_itself: bool) -> Self {
        Self { client, fills_itself, known: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// What the image's repository is called there.
    pub(super) fn repository(image: &SourceImage) -> Result<RepositoryName, CopyError> {
        CacheNames::at_cache(image.repository()).map_err(CopyError::Cache)
    }

    /// Looks for the image and all its wanted parts.
    pub(super) async fn verify(
        &self,
        image: &SourceImage,
        platforms: &Platforms,
    ) -> Result<Verdict, CopyError> {
        let repository = Self::repository(image)?;
        let tag = TagOrDigest::Tag(image.kept_as().clone());
        // A cache that fills itself has no tag of its own for what is asked for by its digest.
        let at = if self.fills_itself { image.at().clone() } else { tag };
        let missing = |what: String| Ok(Verdict::Missing { what });
        let found = self.client.resolve(&repository, &at, Freshness::Cached).await;
        let Some(found) = self.present(found.map(|served| (served.content.digest, served.origin)))? else {
            return missing(format!("manifest {at}"));
        };
        if image
            .digest()
            .is_some_and(|digest| digest.algorithm_name() == found.algorithm_name() && *digest != found)
        {
            return missing(format!("manifest {}: its tag there is on {found}", image.at()));
        }
        let Some(known) = self.known(&repository, &found, platforms).await? else {
            return missing(format!("a manifest of {found}"));
        };
        let manifests = known.manifests.iter().filter(|digest| **digest != found);
        let manifests = manifests.map(|digest| (digest, true));
        let parts = manifests.chain(known.blobs.iter().map(|digest| (digest, false)));
        let look_ups: Vec<_> =
            parts.map(|(digest, manifest)| self.has(&repository, digest, manifest)).collect();
        let mut lacking = stream::iter(look_ups).buffer_unordered(LOOK_UPS);
        while let Some(lacks) = lacking.try_next().await? {
            if let Some(what) = lacks {
                return missing(what);
            }
        }
        Ok(Verdict::Complete { digest: found })
    }

    /// What the image `digest` is made of; `None` where the cache cannot say, because it lacks a manifest.
    async fn known(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        platforms: &Platforms,
    ) -> Result<Option<Arc<Known>>, CopyError> {
        let remembered = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        if let Some(known) = remembered.filter(|known| known.platforms == *platforms) {
            return Ok(Some(known));
        }
        let at = TagOrDigest::Digest(digest.clone());
        let top = self.client.manifest(repository, &at, Freshness::Cached).await;
        let Some(top) = self.present(top.map(|served| (served.content, served.origin)))? else {
            return Ok(None);
        };
        let parts = match parts::parts(&self.client, repository, top, platforms).await {
            Ok(parts) if self.fills_itself && !parts.from_cache => return Ok(None),
            Ok(parts) => parts,
            Err(PartsError::NoPlatform(error)) => return Err(error.into()),
            Err(PartsError::Content(error)) => return self.present(Err(error)),
        };
        Ok(Some(self.remember(digest, &parts, platforms)))
    }

    /// Remembers what the image `digest` is made of.
    fn remember(&self, digest: &Digest, parts: &parts::Parts, platforms: &Platforms) -> Arc<Known> {
        let known = Arc::new(Known {
            platforms: platforms.clone(),
            manifests: parts.manifests.iter().map(|manifest| manifest.digest().clone()).collect(),
            blobs: parts.blobs.keys().cloned().collect(),
        });
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(digest.clone(), known.clone());
        known
    }

    /// Names a part that is not there.
    async fn has(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        manifest: bool,
    ) -> Result<Option<String>, CopyError> {
        let (kind, found) = if manifest {
            let at = TagOrDigest::Digest(digest.clone());
            let found = self.client.resolve(repository, &at, Freshness::Cached).await;
            ("manifest", found.map(|served| ((), served.origin)))
        } else {
            let found = self.client.blob_size(repository, digest).await;
            ("blob", found.map(|served| ((), served.origin)))
        };
        Ok(self.present(found)?.is_none().then(|| format!("{kind} {digest}")))
    }

    /// What was found, where the cache has it itself.
    ///
    /// One that fills itself answers for its upstream too. Whatever else it answers then, it has it not: it would not
    /// have asked anybody.
    pub(super) fn present<T>(&self, found: Result<(T, Origin), SourceError>) -> Result<Option<T>, CopyError> {
        match found {
            Ok((found, Origin::Cache | Origin::Stale(_))) => Ok(Some(found)),
            Ok((found, _)) => Ok((!self.fills_itself).then_some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if self.fills_itself && answered(&error) => Ok(None),
            Err(error) => Err(CopyError::Cache(error)),
        }
    }

    /// Lets go of the image's tag.
    pub(super) async fn remove(&self, image: &SourceImage) -> Result<(), CopyError> {
        let repository = Self::repository(image)?;
        let tag = TagOrDigest::Tag(image.kept_as().clone());
        match self.client.delete_manifest(&repository, &tag).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) if error.kind() == SourceErrorKind::Unsupported => {
                self.untag(&repository, image).await.map_err(CopyError::Cache)
            }
            removed => removed.map_err(CopyError::Cache),
        }
    }

    /// Lets go of a tag where a registry removes manifests alone, as Docker's does before version 3: with every tag that
    /// they have. So the tag is put on a manifest that has no other, and that is removed.
    async fn untag(&self, repository: &RepositoryName, image: &SourceImage) -> Result<(), SourceError> {
        let tag = TagOrDigest::Tag(image.kept_as().clone());
        match self.client.resolve(repository, &tag, Freshness::Cached).await {
            Err(error) if error.is_not_found() => return Ok(()),
            found => found?,
        };
        let nothing = nothing_named(image)?;
        self.client.put_manifest(repository, &nothing, &tag).await?;
        let at = TagOrDigest::Digest(nothing.digest().clone());
        match self.client.delete_manifest(repository, &at).await {
            Err(error) if error.is_not_found() => Ok(()),
            removed => removed,
        }
    }
}

/// Whether there was an answer at all.
fn answered(error: &SourceError) -> bool {
    !error.is_unreachable()
        && error.kind() != SourceErrorKind::TimedOut
        && error.kind() != SourceErrorKind::Forbidden
}

/// An index of nothing, whose bytes no other tag has.
fn nothing_named(image: &SourceImage) -> Result<Manifest, SourceError> {
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
