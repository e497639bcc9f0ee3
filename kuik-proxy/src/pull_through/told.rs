//! A store whose cache hears of what is deleted.

use async_trait::async_trait;
use kuik_core::{
    content::{ContentSource, ContentStore, Digest, ManagedStore, SourceError},
    forward,
    reference::{RepositoryName, Tag},
};

use super::PullThrough;

/// A store `S` behind a cache that remembers manifests: it is told of those that are deleted through this, by a
/// garbage collector for example. Otherwise it would go on to answer with an image whose blobs are gone.
#[derive(Debug, Clone)]
pub struct Told<S> {
    store: S,
    cache: Option<PullThrough>,
}

impl<S> Told<S> {
    /// `store`, and the cache in front of it, where there is one.
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
impl<S: ContentSource> ContentSource for Told<S> {
    forward!(this => &this.store; resolve, manifest, blob_size, blob, blob_location, tags, referrers);
}

#[async_trait]
impl<S: ContentStore> ContentStore for Told<S> {
    forward!(this => &this.store; write_blob, link_blob, has_blob, peek_blob, put_manifest, check_writable);
}

#[async_trait]
impl<S: ManagedStore> ManagedStore for Told<S> {
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
        quarantine_blob, note, put_note, notes, free_bytes);
}
