//! Store whose metadata can be made to fail, for tests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
use kuik_core::{
    content::{ContentSource, ContentStore, MetadataName, RegistryStore, SourceError, SourceErrorKind},
    forward,
    reference::RepositoryName,
};
use kuik_testkit::MemoryStore;

/// A store in memory whose metadata fails while `fails` is set.
#[derive(Debug, Clone, Default)]
pub(super) struct FallibleStore {
    pub(super) memory: MemoryStore,
    pub(super) fails: Arc<AtomicBool>,
}

impl FallibleStore {
    pub(super) fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), SourceError> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(SourceError::new(SourceErrorKind::Unavailable, "the bucket refuses the request")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl ContentSource for FallibleStore {
    forward!(this => &this.memory; resolve, manifest, blob_size, blob, blob_location, tags, referrers);
}

#[async_trait]
impl ContentStore for FallibleStore {
    forward!(this => &this.memory; write_blob, link_blob, has_blob, read_stored, put_manifest, check_writable);
}

#[async_trait]
impl RegistryStore for FallibleStore {
    async fn metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
    ) -> Result<Option<Bytes>, SourceError> {
        self.check()?;
        self.memory.metadata(repository, name).await
    }

    async fn put_metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
        text: Option<Bytes>,
    ) -> Result<(), SourceError> {
        self.check()?;
        self.memory.put_metadata(repository, name, text).await
    }

    fn all_metadata(&self) -> BoxStream<'_, Result<(RepositoryName, MetadataName), SourceError>> {
        match self.check() {
            Ok(()) => self.memory.all_metadata(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    forward!(this => &this.memory;
        delete_tag, delete_manifest, unlink_blob, start_upload, upload, purge_uploads, repositories, manifests,
        linked_blobs, blobs, remove_blob, quarantine_blob, free_bytes);
}
