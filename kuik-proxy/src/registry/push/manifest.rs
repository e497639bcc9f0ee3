//! Manifest pushes, and deletes of manifests, tags and blobs.
//!
//! A manifest is stored byte for byte, and only if the content it references exists. An index may lack some of its
//! manifests: it is then sparse, and keeps the digest that its author signed.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, Response, StatusCode, header};
use kuik_core::{
    content::{
        ContentSource as _, DecodedManifest, Descriptor, Digest, Freshness, MAX_MANIFEST_BYTES, Manifest,
        MediaType, RegistryStore as _, SourceError, TagOrDigest,
    },
    reference::{RepositoryName, Tag},
};

use super::{Shared, Sparse, receive::Incoming, refusal, respond};
use crate::{
    maintenance::gc::Lease,
    service::{ProxyBody, Refusal},
};

/// Number of references of one manifest that are checked concurrently.
const CONCURRENT_CHECKS: usize = 8;

/// Maximum number of checks of a manifest's references.
const MAX_CHECKS: usize = 5;

type Answer = Result<Response<ProxyBody>, Refusal>;

impl Shared {
    /// Stores a manifest, and points tags at it.
    pub(super) async fn put_manifest(
        &self,
        base: &str,
        repository: &RepositoryName,
        at: &TagOrDigest,
        tags: Vec<Tag>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Answer {
        let bytes = body.whole(MAX_MANIFEST_BYTES).await;
        let bytes = bytes.map_err(|error| refusal::received(&error, "MANIFEST_INVALID"))?;
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let sent_as = content_type.map(MediaType::from_header);
        let manifest = Manifest::new(sent_as.as_ref(), bytes).map_err(|error| refusal::manifest(&error))?;
        let (manifest, tags) = match at {
            TagOrDigest::Digest(digest) => {
                let verified = manifest.verified_as(digest);
                (verified.map_err(|error| refusal::manifest_digest(&error))?, tags)
            }
            TagOrDigest::Tag(tag) => (manifest, [vec![tag.clone()], tags].concat()),
        };
        let decoded = manifest.decode().map_err(|error| refusal::manifest(&error))?;
        self.store_with_references(repository, &manifest, &decoded, &tags).await?;
        let subject = match &decoded {
            DecodedManifest::Image(image) => image.subject.as_ref(),
            DecodedManifest::Index(index) => index.subject.as_ref(),
            _ => None,
        };
        let given = if matches!(at, TagOrDigest::Digest(_)) { tags.as_slice() } else { &[] };
        Ok(respond::manifest(base, manifest.digest(), subject.map(|subject| &subject.digest), given))
    }

    /// Stores a manifest under a lease that protects all references found under it, until the manifest itself
    /// references them. If that took too long, other processes may be about to remove those found first, and all are
    /// checked again.
    async fn store_with_references(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        decoded: &DecodedManifest,
        tags: &[Tag],
    ) -> Result<(), Refusal> {
        let mut looks = 1;
        loop {
            let lease = self.store.leases().lease_manifest(manifest).await;
            let lease = Arc::new(lease.map_err(|error| refusal::upload(&error))?);
            self.check_references(repository, decoded).await?;
            match self.keep(&lease, repository, manifest, tags).await {
                Err(error) if !lease.is_valid() && looks < MAX_CHECKS => {
                    tracing::debug!(%repository, error = error.chain(), "storing a manifest again after a lost lease");
                    looks += 1;
                }
                kept => return kept.map_err(|error| refusal::upload(&error)),
            }
        }
    }

    async fn keep(
        &self,
        lease: &Arc<Lease>,
        repository: &RepositoryName,
        manifest: &Manifest,
        tags: &[Tag],
    ) -> Result<(), SourceError> {
        match tags {
            [] => self.store.put_manifest_under(lease.clone(), repository, manifest, None).await?,
            tags => {
                for tag in tags {
                    self.store.put_manifest_under(lease.clone(), repository, manifest, Some(tag)).await?;
                }
            }
        }
        self.changed(repository);
        Ok(())
    }

    /// Refuses a manifest that references content missing in the repository.
    async fn check_references(
        &self,
        repository: &RepositoryName,
        decoded: &DecodedManifest,
    ) -> Result<(), Refusal> {
        let (referred, manifests): (Vec<&Descriptor>, bool) = match decoded {
            DecodedManifest::Image(image) if self.options.sparse < Sparse::Images => {
                let layers = image.layers.iter().filter(|layer| is_distributed(&layer.media_type));
                (std::iter::once(&image.config).chain(layers).collect(), false)
            }
            DecodedManifest::Index(index) if self.options.sparse < Sparse::Indexes => {
                (index.manifests.iter().collect(), true)
            }
            _ => return Ok(()),
        };
        let look_ups: Vec<_> = referred
            .into_iter()
            .map(|descriptor| self.is_missing(repository, &descriptor.digest, manifests).boxed())
            .collect();
        let found: Result<Vec<_>, _> = stream::iter(look_ups).buffered(CONCURRENT_CHECKS).try_collect().await;
        let found = found.map_err(|error| Refusal::source(&error, "MANIFEST_BLOB_UNKNOWN"))?;
        let missing: Vec<&Digest> = found.into_iter().flatten().collect();
        if missing.is_empty() { Ok(()) } else { Err(refusal::missing(&missing)) }
    }

    /// Returns the digest if the repository lacks the manifest or blob.
    async fn is_missing<'a>(
        &self,
        repository: &RepositoryName,
        digest: &'a Digest,
        manifest: bool,
    ) -> Result<Option<&'a Digest>, SourceError> {
        let found = if manifest {
            let at = TagOrDigest::Digest(digest.clone());
            self.store.resolve(repository, &at, Freshness::Cached).await.map(drop)
        } else {
            self.store.blob_size(repository, digest).await.map(drop)
        };
        match found {
            Ok(()) => Ok(None),
            Err(error) if error.is_not_found() => Ok(Some(digest)),
            Err(error) => Err(error),
        }
    }

    /// Deletes a tag, or a manifest with all its tags.
    pub(super) async fn delete_manifest(&self, repository: &RepositoryName, at: &TagOrDigest) -> Answer {
        let deleted = match at {
            TagOrDigest::Tag(tag) => self.store.delete_tag(repository, tag).await,
            TagOrDigest::Digest(digest) => self.store.delete_manifest(repository, digest).await,
        };
        deleted.map_err(|error| Refusal::source(&error, "MANIFEST_UNKNOWN"))?;
        self.changed(repository);
        Ok(respond::empty(StatusCode::ACCEPTED))
    }

    /// Deletes a blob from a repository.
    pub(super) async fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Answer {
        let deleted = self.store.unlink_blob(repository, digest).await;
        deleted.map_err(|error| Refusal::source(&error, "BLOB_UNKNOWN"))?;
        Ok(respond::empty(StatusCode::ACCEPTED))
    }

    /// Invalidates the cache in front of the store.
    fn changed(&self, repository: &RepositoryName) {
        if let Some(cache) = &self.cache {
            cache.forget(repository);
        }
    }
}

/// Whether a layer is pushed with its image. Some are only referenced, and fetched from their author's location (OCI
/// image specification, "Non-Distributable Layers"; Docker's foreign layers).
fn is_distributed(media_type: &MediaType) -> bool {
    let text = media_type.as_str();
    !text.starts_with("application/vnd.oci.image.layer.nondistributable.")
        && !text.starts_with("application/vnd.docker.image.rootfs.foreign.")
}
