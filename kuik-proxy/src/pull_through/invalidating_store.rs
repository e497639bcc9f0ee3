//! Store decorator that invalidates the manifest cache on deletes.

use async_trait::async_trait;
use kuik_core::{
    content::{ContentSource, ContentStore, Digest, RegistryStore, SourceError},
    forward,
    reference::{RepositoryName, Tag},
};

use super::PullThrough;

/// A store `S` behind a cache that keeps manifests in memory: deletes through this decorator, for example by a
/// garbage collector, invalidate that cache. Otherwise the cache would still serve an image whose blobs are gone.
#[derive(Debug, Clone)]
pub struct InvalidatingStore<S> {
    store: S,
    cache: Option<PullThrough>,
}

impl<S> InvalidatingStore<S> {
    /// Decorates `store` with invalidation of `cache`, if there is one.
    pub fn new(store: S, cache: Option<PullThrough>) -> Self {
        Self { store, cache }
    }

    fn forget(&self, repository: &RepositoryName) {
        if let Some(cache) = &self.cache {
            cache.forget(repository);
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ContentSource> ContentSource for InvalidatingStore<S> {
    forward!(this => &this.store; resolve, manifest, blob_size, blob, blob_location, tags, referrers, report_corrupt);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ContentStore> ContentStore for InvalidatingStore<S> {
    forward!(this => &this.store; write_blob, link_blob, has_blob, read_stored, put_manifest, check_writable);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: RegistryStore> RegistryStore for InvalidatingStore<S> {
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), SourceError> {
        let deleted = self.store.delete_tag(repository, tag).await;
        self.forget(repository);
        deleted
    }

    async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let deleted = self.store.delete_manifest(repository, digest).await;
        self.forget(repository);
        deleted
    }

    forward!(this => &this.store;
        unlink_blob, start_upload, upload, purge_uploads, repositories, manifests, linked_blobs, blobs, remove_blob,
        quarantine_blob, metadata, put_metadata, all_metadata, free_bytes);
}
