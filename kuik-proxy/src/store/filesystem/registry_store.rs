//! Implementation of `RegistryStore`: each method calls the module that does the work.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kuik_core::{
    content::{
        Digest, MetadataName, RegistryStore, SourceError, SourceErrorKind, StoredBlob, Upload, UploadId,
    },
    reference::{RepositoryName, Tag},
};

use super::{
    FilesystemStore, blocking, metadata,
    uploads::{self, FileUpload},
    walk,
};

#[async_trait]
impl RegistryStore for FilesystemStore {
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), SourceError> {
        let attempted = format!("delete tag {tag} of {repository}");
        let dir = self.shared.layout.repository(repository)?;
        let (tag, durability) = (tag.clone(), self.durability);
        let guard = self.shared.locks.of(&dir).write_owned().await;
        self.disk(attempted, move |shared| {
            let _guard = guard;
            shared.delete_tag(&dir, &tag, durability)
        })
        .await
    }

    async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let attempted = format!("delete manifest {digest} of {repository}");
        let dir = self.shared.layout.repository(repository)?;
        let (digest, durability) = (digest.clone(), self.durability);
        let turn = self.shared.locks.turn(&dir).await;
        self.disk(attempted, move |shared| {
            let _turn = turn;
            shared.delete_manifest(&dir, &digest, durability)
        })
        .await
    }

    async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let attempted = format!("delete blob {digest} of {repository}");
        let dir = self.shared.layout.repository(repository)?;
        let (digest, durability) = (digest.clone(), self.durability);
        self.disk(attempted, move |shared| shared.unlink_blob(&dir, &digest, durability)).await
    }

    async fn start_upload(&self, repository: &RepositoryName) -> Result<UploadId, SourceError> {
        let attempted = format!("begin an upload into {repository}");
        let dir = self.shared.layout.repository(repository)?;
        let durability = self.durability;
        self.disk(attempted, move |shared| uploads::start(shared, &dir, SystemTime::now(), durability)).await
    }

    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError> {
        Ok(Box::new(FileUpload::open(&self.shared, repository, id, self.durability).await?))
    }

    async fn purge_uploads(&self, idle_since: SystemTime) -> Result<u64, SourceError> {
        let shared = self.shared.clone();
        blocking("purge idle uploads from the store", move || uploads::purge(&shared, idle_since)).await
    }

    fn repositories(&self) -> BoxStream<'_, Result<RepositoryName, SourceError>> {
        let found = walk::repositories(self.shared.layout.repositories());
        let names = found.map(|found| found.map(|(name, _)| name));
        walk::stream("list the repositories of the store".to_owned(), Box::new(names))
    }

    fn manifests<'a>(&'a self, repository: &'a RepositoryName) -> BoxStream<'a, Result<Digest, SourceError>> {
        let dir = match self.shared.layout.repository(repository) {
            Ok(dir) => dir,
            Err(error) => return stream::once(std::future::ready(Err(error))).boxed(),
        };
        let digests = walk::links(dir.revisions()).map(|found| found.map(|(digest, _)| digest));
        walk::stream(format!("list the manifests of {repository} in the store"), Box::new(digests))
    }

    fn linked_blobs<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxStream<'a, Result<Digest, SourceError>> {
        let dir = match self.shared.layout.repository(repository) {
            Ok(dir) => dir,
            Err(error) => return stream::once(std::future::ready(Err(error))).boxed(),
        };
        let digests = walk::links(dir.layers()).map(|found| found.map(|(digest, _)| digest));
        walk::stream(format!("list the blobs of {repository} in the store"), Box::new(digests))
    }

    fn blobs(&self) -> BoxStream<'_, Result<StoredBlob, SourceError>> {
        let found = walk::blobs(self.shared.layout.blobs());
        walk::stream("list the blobs of the store".to_owned(), found)
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        let attempted = format!("remove the bytes of {digest}");
        let (digest, durability) = (digest.clone(), self.durability);
        self.disk(attempted, move |shared| shared.remove_blob(&digest, durability)).await
    }

    async fn quarantine_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        let attempted = format!("quarantine the bytes of {digest}");
        let (digest, durability) = (digest.clone(), self.durability);
        self.disk(attempted, move |shared| shared.quarantine_blob(&digest, durability)).await
    }

    async fn metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
    ) -> Result<Option<Bytes>, SourceError> {
        let attempted = format!("read the metadata {name} of {repository}");
        let (dir, name) = (self.shared.layout.notes_about(repository)?, name.clone());
        self.disk(attempted, move |shared| shared.metadata(&dir, &name)).await
    }

    async fn put_metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
        text: Option<Bytes>,
    ) -> Result<(), SourceError> {
        let attempted = format!("store the metadata {name} of {repository}");
        if text.as_deref().is_some_and(metadata::is_too_large) {
            let attempted = format!("{attempted}: it is too large");
            return Err(SourceError::new(SourceErrorKind::Unsupported, attempted));
        }
        let (dir, name) = (self.shared.layout.notes_about(repository)?, name.clone());
        let durability = self.durability;
        self.disk(attempted, move |shared| shared.put_metadata(&dir, &name, text.as_deref(), durability))
            .await
    }

    fn all_metadata(&self) -> BoxStream<'_, Result<(RepositoryName, MetadataName), SourceError>> {
        walk::stream("list the metadata of the store".to_owned(), self.shared.all_metadata())
    }

    async fn free_bytes(&self) -> Result<Option<u64>, SourceError> {
        let dir = self.shared.layout.data_dir().to_owned();
        self.disk("read the free space of the store", move |_| {
            let space = rustix::fs::statvfs(&dir)?;
            Ok(Some(space.f_bavail.saturating_mul(space.f_frsize)))
        })
        .await
    }
}
