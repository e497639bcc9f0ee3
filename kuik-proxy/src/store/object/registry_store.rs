//! Implementation of `RegistryStore`: each method calls the module that does the work.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use kuik_core::{
    content::{
        Digest, MAX_METADATA_BYTES, MetadataName, RegistryStore, SourceError, SourceErrorKind, StoredBlob,
        Upload, UploadId,
    },
    reference::{RepositoryName, Tag},
};

use super::{
    ObjectStorage, RepositoryKey,
    uploads::{self, ObjectUpload},
};
use crate::store::layout;

#[async_trait]
impl RegistryStore for ObjectStorage {
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), SourceError> {
        let attempted = format!("delete tag {tag} of {repository}");
        let repository = RepositoryKey::of(repository)?;
        let _guard = match self.shared.lock(&repository) {
            Some(lock) => Some(lock.write().await),
            None => None,
        };
        self.shared.delete_tag(&attempted, &repository, tag).await
    }

    async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let attempted = format!("delete manifest {digest} of {repository}");
        self.shared.delete_manifest(&attempted, &RepositoryKey::of(repository)?, digest).await
    }

    async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let attempted = format!("delete blob {digest} of {repository}");
        self.shared.unlink_blob(&attempted, &RepositoryKey::of(repository)?, digest).await
    }

    async fn start_upload(&self, repository: &RepositoryName) -> Result<UploadId, SourceError> {
        uploads::start(&self.shared, repository, SystemTime::now()).await
    }

    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError> {
        Ok(Box::new(ObjectUpload::open(&self.shared, repository, id).await?))
    }

    async fn purge_uploads(&self, idle_since: SystemTime) -> Result<u64, SourceError> {
        uploads::purge(&self.shared, idle_since).await
    }

    fn repositories(&self) -> BoxStream<'_, Result<RepositoryName, SourceError>> {
        self.shared.repositories()
    }

    fn manifests<'a>(&'a self, repository: &'a RepositoryName) -> BoxStream<'a, Result<Digest, SourceError>> {
        self.links(format!("list the manifests of {repository}"), repository, layout::REVISIONS)
    }

    fn linked_blobs<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxStream<'a, Result<Digest, SourceError>> {
        self.links(format!("list the blobs of {repository}"), repository, layout::LAYERS)
    }

    fn blobs(&self) -> BoxStream<'_, Result<StoredBlob, SourceError>> {
        self.shared.blobs()
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        self.shared.remove_blob(&format!("remove the bytes of {digest}"), digest).await
    }

    async fn quarantine_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        self.shared.quarantine_blob(&format!("quarantine {digest}"), digest).await
    }

    async fn metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
    ) -> Result<Option<Bytes>, SourceError> {
        self.shared.metadata(repository, name).await
    }

    async fn put_metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
        text: Option<Bytes>,
    ) -> Result<(), SourceError> {
        if let Some(text) = text.as_ref().filter(|text| text.len() > MAX_METADATA_BYTES) {
            let attempted = format!("store metadata of {} bytes of {repository}", text.len());
            return Err(SourceError::new(SourceErrorKind::Unsupported, attempted));
        }
        self.shared.put_metadata(repository, name, text).await
    }

    fn all_metadata(&self) -> BoxStream<'_, Result<(RepositoryName, MetadataName), SourceError>> {
        self.shared.all_metadata()
    }

    async fn free_bytes(&self) -> Result<Option<u64>, SourceError> {
        Ok(None)
    }
}

impl ObjectStorage {
    fn links(
        &self,
        attempted: String,
        repository: &RepositoryName,
        part: &str,
    ) -> BoxStream<'static, Result<Digest, SourceError>> {
        match RepositoryKey::of(repository) {
            Ok(repository) => {
                self.shared.links(attempted, repository.at(part)).map_ok(|(digest, _)| digest).boxed()
            }
            Err(error) => stream::once(std::future::ready(Err(error))).boxed(),
        }
    }
}
