//! A store that is cut off in the middle of removing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use kuik_core::{
    content::{ContentSource, ContentStore, Digest, RegistryStore, SourceError, SourceErrorKind},
    forward,
    reference::RepositoryName,
};

/// A store that removes so much, and then nothing any more.
#[derive(Debug, Clone)]
pub(crate) struct Failing<S> {
    store: S,
    left: Arc<AtomicUsize>,
}

impl<S> Failing<S> {
    pub(crate) fn after(store: S, steps: usize) -> Self {
        Self { store, left: Arc::new(AtomicUsize::new(steps)) }
    }

    fn step(&self) -> Result<(), SourceError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| SourceError::new(SourceErrorKind::Storage, "cut off"))
    }
}

#[async_trait]
impl<S: ContentStore + Clone> ContentSource for Failing<S> {
    forward!(this => &this.store; resolve, manifest, blob_size, blob, blob_location, tags, referrers);
}

#[async_trait]
impl<S: ContentStore + Clone> ContentStore for Failing<S> {
    forward!(this => &this.store; write_blob, link_blob, has_blob, read_stored, put_manifest, check_writable);
}

#[async_trait]
impl<S: RegistryStore + Clone> RegistryStore for Failing<S> {
    async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        self.step()?;
        self.store.delete_manifest(repository, digest).await
    }

    async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        self.step()?;
        self.store.unlink_blob(repository, digest).await
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        self.step()?;
        self.store.remove_blob(digest).await
    }

    forward!(this => &this.store;
        delete_tag, start_upload, upload, purge_uploads, repositories, manifests, linked_blobs, blobs,
        quarantine_blob, metadata, put_metadata, all_metadata, free_bytes);
}
