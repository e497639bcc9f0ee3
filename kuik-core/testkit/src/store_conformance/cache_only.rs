//! A [`ContentStore`] as seen by the suite: whatever else a registry needs is unsupported.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kuik_core::{
    content::{
        ContentSource, ContentStore, Digest, MetadataName, RegistryStore, SourceError, SourceErrorKind,
        StoredBlob, Upload, UploadId,
    },
    forward,
    reference::{RepositoryName, Tag},
};

#[derive(Debug)]
pub(super) struct CacheOnly(pub(super) Arc<dyn ContentStore>);

type Outcome<T> = Result<T, SourceError>;

fn unsupported<T>() -> Outcome<T> {
    Err(SourceError::new(SourceErrorKind::Unsupported, "use a cache's store as a registry's".to_owned()))
}

fn nothing<'a, T: Send + 'a>() -> BoxStream<'a, Outcome<T>> {
    stream::iter([unsupported()]).boxed()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentSource for CacheOnly {
    forward!(this => &this.0; resolve, manifest, blob_size, blob, blob_location, tags, referrers, report_corrupt);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentStore for CacheOnly {
    forward!(this => &this.0; write_blob, link_blob, has_blob, read_stored, put_manifest, check_writable);
}

#[async_trait]
impl RegistryStore for CacheOnly {
    async fn delete_tag(&self, _: &RepositoryName, _: &Tag) -> Outcome<()> {
        unsupported()
    }

    async fn delete_manifest(&self, _: &RepositoryName, _: &Digest) -> Outcome<()> {
        unsupported()
    }

    async fn unlink_blob(&self, _: &RepositoryName, _: &Digest) -> Outcome<()> {
        unsupported()
    }

    async fn start_upload(&self, _: &RepositoryName) -> Outcome<UploadId> {
        unsupported()
    }

    async fn upload(&self, _: &RepositoryName, _: &UploadId) -> Outcome<Box<dyn Upload>> {
        unsupported()
    }

    async fn purge_uploads(&self, _: SystemTime) -> Outcome<u64> {
        unsupported()
    }

    fn repositories(&self) -> BoxStream<'_, Outcome<RepositoryName>> {
        nothing()
    }

    fn manifests<'a>(&'a self, _: &'a RepositoryName) -> BoxStream<'a, Outcome<Digest>> {
        nothing()
    }

    fn linked_blobs<'a>(&'a self, _: &'a RepositoryName) -> BoxStream<'a, Outcome<Digest>> {
        nothing()
    }

    fn blobs(&self) -> BoxStream<'_, Outcome<StoredBlob>> {
        nothing()
    }

    async fn remove_blob(&self, _: &Digest) -> Outcome<()> {
        unsupported()
    }

    async fn quarantine_blob(&self, _: &Digest) -> Outcome<()> {
        unsupported()
    }

    async fn metadata(&self, _: &RepositoryName, _: &MetadataName) -> Outcome<Option<Bytes>> {
        unsupported()
    }

    async fn put_metadata(&self, _: &RepositoryName, _: &MetadataName, _: Option<Bytes>) -> Outcome<()> {
        unsupported()
    }

    fn all_metadata(&self) -> BoxStream<'_, Outcome<(RepositoryName, MetadataName)>> {
        nothing()
    }

    async fn free_bytes(&self) -> Outcome<Option<u64>> {
        unsupported()
    }
}
