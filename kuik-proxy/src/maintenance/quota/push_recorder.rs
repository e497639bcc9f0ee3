//! Store decorator that records the repositories that clients push to.
//!
//! Pulled-through content can be fetched again, and may expire; pushed content may exist nowhere else. A push of a
//! manifest that its repository has already only tags it, and is not recorded: controllers tag pulled-through content in
//! this way.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{
        ContentSource, ContentStore, Freshness, Manifest, MetadataName, RegistryStore, SourceError,
        SourceErrorKind, TagOrDigest,
    },
    forward,
    reference::{RepositoryName, Tag},
};
use parking_lot::Mutex;

/// Name of the metadata entry.
const METADATA_NAME: &str = "pushed";

/// Maximum number of repositories remembered, so that a push into them costs no read.
const REMEMBERED: usize = 10_000;

/// Store `S` for pushed content; each repository that gets a new manifest is recorded in its metadata.
#[derive(Debug, Clone)]
pub struct PushRecorder<S> {
    store: S,
    known: Arc<Mutex<HashSet<RepositoryName>>>,
}

impl<S: RegistryStore> PushRecorder<S> {
    /// Wraps `store`. Content from upstream is to be written past this decorator.
    pub fn new(store: S) -> Self {
        Self { store, known: Arc::default() }
    }

    /// Records that a client pushes this manifest, unless it only tags it.
    async fn record(&self, repository: &RepositoryName, manifest: &Manifest) -> Result<(), SourceError> {
        if self.is_known(repository, false) {
            return Ok(());
        }
        let at = TagOrDigest::Digest(manifest.digest().clone());
        match self.store.resolve(repository, &at, Freshness::Cached).await {
            Ok(_) => return Ok(()),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
        if !is_pushed(&self.store, repository).await? {
            let text = Bytes::from_static(b"true");
            self.store.put_metadata(repository, &metadata_name()?, Some(text)).await?;
        }
        self.is_known(repository, true);
        Ok(())
    }

    /// Returns whether the repository is remembered, and remembers it if `now`.
    fn is_known(&self, repository: &RepositoryName, now: bool) -> bool {
        let mut known = self.known.lock();
        if now && known.len() < REMEMBERED {
            known.insert(repository.clone());
        }
        known.contains(repository)
    }
}

/// Returns whether a client has pushed to the repository.
pub(super) async fn is_pushed(
    store: &(impl RegistryStore + ?Sized),
    repository: &RepositoryName,
) -> Result<bool, SourceError> {
    Ok(store.metadata(repository, &metadata_name()?).await?.is_some())
}

fn metadata_name() -> Result<MetadataName, SourceError> {
    METADATA_NAME
        .parse()
        .map_err(|error| SourceError::caused_by(SourceErrorKind::Unsupported, "name a metadata entry", error))
}

fn is_absent(error: &SourceError) -> bool {
    matches!(error.kind(), SourceErrorKind::NotFound | SourceErrorKind::InvalidContent)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ContentSource> ContentSource for PushRecorder<S> {
    forward!(this => &this.store; resolve, manifest, blob_size, blob, blob_location, tags, referrers,
        report_corrupt);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: RegistryStore> ContentStore for PushRecorder<S> {
    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        self.record(repository, manifest).await?;
        self.store.put_manifest(repository, manifest, tag).await
    }

    forward!(this => &this.store; write_blob, link_blob, has_blob, read_stored, check_writable);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: RegistryStore> RegistryStore for PushRecorder<S> {
    forward!(this => &this.store;
        delete_tag, delete_manifest, unlink_blob, start_upload, upload, purge_uploads, repositories, manifests,
        linked_blobs, blobs, remove_blob, quarantine_blob, metadata, put_metadata, all_metadata, free_bytes);
}

#[cfg(test)]
mod tests {
    use kuik_testkit::{MemoryStore, SampleImage};

    use super::*;

    #[tokio::test]
    async fn push_of_a_new_manifest_is_recorded_and_a_tag_is_not() {
        let (memory, image) = (MemoryStore::new(), SampleImage::builder().seed(1).build());
        let [pulled, pushed] = ["pulled", "pushed"].map(|name| RepositoryName::local(name).unwrap());
        let (index, tag) = (image.index(), "v1".parse().unwrap());
        memory.put_manifest(&pulled, index, None).await.unwrap();
        let store = PushRecorder::new(memory.clone());
        store.put_manifest(&pulled, index, Some(&tag)).await.unwrap();
        store.put_manifest(&pushed, index, Some(&tag)).await.unwrap();
        assert!(!is_pushed(&memory, &pulled).await.unwrap());
        assert!(is_pushed(&memory, &pushed).await.unwrap());
    }
}
