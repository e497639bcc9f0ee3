//! [`RegistryStore`] of a [`MemoryStore`]: deletes, uploads, enumeration.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::SystemTime,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::{MemoryStore, Repository, Uploaded, absent, path};
use kuik_core::{
    content::{
        Digest, Hashing, MAX_METADATA_BYTES, MetadataName, RegistryStore, SourceError, SourceErrorKind,
        StoredBlob, Upload, UploadId,
    },
    reference::{RepositoryName, Tag},
};

#[async_trait]
impl RegistryStore for MemoryStore {
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), SourceError> {
        let mut state = self.state();
        let removed = state.existing_mut(repository)?.and_then(|found| found.tags.remove(tag));
        removed.map(drop).ok_or_else(|| absent(format!("delete tag {tag} of {repository}")))
    }

    async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let mut state = self.state();
        let found = state.existing_mut(repository)?;
        let Some(found) = found.filter(|found| found.manifests.contains(digest)) else {
            return Err(absent(format!("delete manifest {digest} of {repository}")));
        };
        found.manifests.remove(digest);
        found.tags.retain(|_, target| target != digest);
        Ok(())
    }

    async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        match self.state().existing_mut(repository)?.is_some_and(|found| found.layers.remove(digest)) {
            true => Ok(()),
            false => Err(absent(format!("delete blob {digest} of {repository}"))),
        }
    }

    async fn start_upload(&self, repository: &RepositoryName) -> Result<UploadId, SourceError> {
        // The standard library seeds hash maps at random: sufficient for ids that need not be unpredictable.
        let random = || RandomState::new().build_hasher().finish();
        let id = UploadId::from_random(((u128::from(random()) << 64) | u128::from(random())).to_be_bytes());
        let mut state = self.state();
        state.repository_mut(repository)?.uploads.insert(id.as_str().to_owned(), Uploaded::default());
        Ok(id)
    }

    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError> {
        let attempted = || format!("resume upload {} of {repository}", id.as_str());
        let mut state = self.state();
        let found = state.existing_mut(repository)?.and_then(|found| found.uploads.get_mut(id.as_str()));
        let upload = found.ok_or_else(|| absent(attempted()))?;
        if std::mem::replace(&mut upload.leased, true) {
            let attempted = format!("{}: it is in use by another request", attempted());
            return Err(SourceError::new(SourceErrorKind::Unavailable, attempted));
        }
        let offset = upload.data.len() as u64;
        Ok(Box::new(MemoryUpload {
            store: self.clone(),
            repository: repository.clone(),
            id: id.as_str().to_owned(),
            offset,
        }))
    }

    async fn purge_uploads(&self, idle_since: SystemTime) -> Result<u64, SourceError> {
        let mut state = self.state();
        let mut purged = 0;
        for found in state.repositories.values_mut() {
            let before = found.uploads.len();
            found.uploads.retain(|_, upload| upload.leased || upload.used >= idle_since);
            purged += before - found.uploads.len();
        }
        Ok(purged as u64)
    }

    fn repositories(&self) -> BoxStream<'_, Result<RepositoryName, SourceError>> {
        let has_something = |found: &Repository| {
            !(found.layers.is_empty() && found.manifests.is_empty() && found.uploads.is_empty())
        };
        let state = self.state();
        let found = state.repositories.iter().filter(|(_, found)| has_something(found));
        let names: Vec<_> = found.filter_map(|(path, _)| RepositoryName::local(path).ok()).map(Ok).collect();
        stream::iter(names).boxed()
    }

    fn manifests<'a>(&'a self, repository: &'a RepositoryName) -> BoxStream<'a, Result<Digest, SourceError>> {
        let found: Result<Vec<_>, _> = self
            .state()
            .repository(repository)
            .map(|found| found.into_iter().flat_map(|found| &found.manifests).cloned().map(Ok).collect());
        stream::iter(found.unwrap_or_else(|error| vec![Err(error)])).boxed()
    }

    fn linked_blobs<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxStream<'a, Result<Digest, SourceError>> {
        let found: Result<Vec<_>, _> = self
            .state()
            .repository(repository)
            .map(|found| found.into_iter().flat_map(|found| &found.layers).cloned().map(Ok).collect());
        stream::iter(found.unwrap_or_else(|error| vec![Err(error)])).boxed()
    }

    fn blobs(&self) -> BoxStream<'_, Result<StoredBlob, SourceError>> {
        let state = self.state();
        let blobs = state.blobs.iter().map(|(digest, kept)| {
            let (size, modified) = (kept.bytes.len() as u64, kept.modified);
            Ok(StoredBlob { digest: digest.clone(), size, modified })
        });
        stream::iter(blobs.collect::<Vec<_>>()).boxed()
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        self.state().blobs.remove(digest);
        Ok(())
    }

    async fn quarantine_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        let mut state = self.state();
        let kept = state.blobs.remove(digest);
        let kept = kept.ok_or_else(|| absent(format!("quarantine {digest}")))?;
        state.quarantined.insert(digest.clone(), kept.bytes);
        Ok(())
    }

    async fn metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
    ) -> Result<Option<Bytes>, SourceError> {
        Ok(self.state().repository(repository)?.and_then(|found| found.metadata.get(name)).cloned())
    }

    async fn put_metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
        text: Option<Bytes>,
    ) -> Result<(), SourceError> {
        let mut state = self.state();
        let metadata = &mut state.repository_mut(repository)?.metadata;
        match text {
            Some(text) if text.len() > MAX_METADATA_BYTES => {
                let attempted = format!("store a metadata entry of {} bytes for {repository}", text.len());
                return Err(SourceError::new(SourceErrorKind::Unsupported, attempted));
            }
            Some(text) => drop(metadata.insert(name.clone(), text)),
            None => drop(metadata.remove(name)),
        }
        Ok(())
    }

    fn all_metadata(&self) -> BoxStream<'_, Result<(RepositoryName, MetadataName), SourceError>> {
        let state = self.state();
        let named = state.repositories.iter().filter_map(|(path, found)| {
            RepositoryName::local(path).ok().map(|repository| (repository, &found.metadata))
        });
        let metadata = named.flat_map(|(repository, metadata)| {
            metadata.keys().map(move |name| Ok((repository.clone(), name.clone())))
        });
        stream::iter(metadata.collect::<Vec<_>>()).boxed()
    }

    async fn free_bytes(&self) -> Result<Option<u64>, SourceError> {
        Ok(None)
    }
}

/// An upload that is open for exclusive use.
#[derive(Debug)]
struct MemoryUpload {
    store: MemoryStore,
    repository: RepositoryName,
    id: String,
    offset: u64,
}

impl MemoryUpload {
    /// Removes the upload from the store and returns its data.
    fn end(&self) -> Result<Vec<u8>, SourceError> {
        let mut state = self.store.state();
        let ended = state.existing_mut(&self.repository)?.and_then(|found| found.uploads.remove(&self.id));
        Ok(ended.map(|upload| upload.data).unwrap_or_default())
    }
}

impl Drop for MemoryUpload {
    fn drop(&mut self) {
        let mut state = self.store.state();
        let found = path(&self.repository).ok().and_then(|path| state.repositories.get_mut(&path));
        if let Some(upload) = found.and_then(|found| found.uploads.get_mut(&self.id)) {
            upload.leased = false;
        }
    }
}

#[async_trait]
impl Upload for MemoryUpload {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        let mut state = self.store.state();
        let upload = state.repository_mut(&self.repository)?.uploads.entry(self.id.clone()).or_default();
        chunks.iter().for_each(|chunk| upload.data.extend_from_slice(chunk));
        upload.used = SystemTime::now();
        self.offset = upload.data.len() as u64;
        Ok(())
    }

    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError> {
        let attempted = format!("finish upload {} of {} as {expected}", self.id, self.repository);
        let Some(algorithm) = expected.algorithm() else {
            let attempted = format!("{attempted}: its digest algorithm is not supported");
            return Err(SourceError::new(SourceErrorKind::Unsupported, attempted));
        };
        let data = self.end()?;
        let mut hashing = Hashing::new(algorithm);
        hashing.update(&data);
        let verified = hashing
            .verify(expected)
            .map_err(|error| SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, error))?;
        let mut state = self.store.state();
        state.keep(verified.digest().clone(), data.into());
        state.repository_mut(&self.repository)?.layers.insert(expected.clone());
        Ok(())
    }

    async fn cancel(self: Box<Self>) -> Result<(), SourceError> {
        self.end().map(drop)
    }
}
