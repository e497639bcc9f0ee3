//! Store decorator that takes a lease on every digest a write names.
//!
//! Every write holds its lease until it ends, and so does every existence check: its client may be about to name that
//! content or to pull what it references, so the result is remembered too. Reads of blobs pass through unchanged:
//! open content stays readable.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{
        BlobLocation, BlobSpool, BlobWriter, Cached, ContentSource, ContentStore, Descriptor, Digest,
        Freshness, Manifest, RegistryStore, SourceError, SourceErrorKind, TagOrDigest, Upload, UploadId,
        Verified,
    },
    forward,
    reference::{RepositoryName, Tag},
};

use super::{Lease, Leases, guarded_write::guarded_write};

/// Store `S` that is garbage-collected while in use.
#[derive(Debug, Clone)]
pub struct LeasedStore<S> {
    store: S,
    leases: Leases,
}

impl<S> LeasedStore<S> {
    /// Wraps `store`; its [`Collector`](super::Collector) uses the same `leases`.
    pub fn new(store: S, leases: Leases) -> Self {
        Self { store, leases }
    }

    /// Returns the leases of the store.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Records a request for content that exists.
    fn record_access<T>(
        &self,
        digest: impl FnOnce(&T) -> Digest,
        answer: Result<Cached<T>, SourceError>,
    ) -> Result<Cached<T>, SourceError> {
        if let Ok(served) = &answer {
            self.leases.accessed(&digest(&served.content), Instant::now());
        }
        answer
    }
}

impl<S: ContentStore + Clone> LeasedStore<S> {
    /// Stores a manifest like [`put_manifest`](ContentStore::put_manifest), under a lease from
    /// [`lease_manifest`](Leases::lease_manifest) that the caller took before it checked for the content the manifest
    /// names.
    ///
    /// # Errors
    /// Fails if the store fails, and with `Unavailable` if the lease has expired.
    pub async fn put_manifest_under(
        &self,
        lease: Arc<Lease>,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let (store, repository, manifest) = (self.store.clone(), repository.clone(), manifest.clone());
        let tag = tag.cloned();
        // Disk work continues after its caller is dropped, and the lease must outlast it.
        let put = tokio::spawn(async move {
            lease.within(store.put_manifest(&repository, &manifest, tag.as_ref())).await
        });
        put.await.unwrap_or_else(|error| {
            let attempted = "store a manifest: its task ended early";
            Err(SourceError::caused_by(SourceErrorKind::Storage, attempted, error))
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ContentStore + Clone> ContentSource for LeasedStore<S> {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        let digest = if let TagOrDigest::Digest(digest) = at { Some(digest) } else { None };
        let _lease = self.leases.lease(digest).await;
        self.record_access(|found| found.digest.clone(), self.store.resolve(repository, at, freshness).await)
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        let digest = if let TagOrDigest::Digest(digest) = at { Some(digest) } else { None };
        let _lease = self.leases.lease(digest).await;
        self.record_access(
            |found| found.digest().clone(),
            self.store.manifest(repository, at, freshness).await,
        )
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        let _lease = self.leases.lease([digest]).await;
        self.record_access(|_| digest.clone(), self.store.blob_size(repository, digest).await)
    }

    async fn blob_location(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        valid_for: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        let _lease = self.leases.lease([digest]).await;
        let location = self.store.blob_location(repository, digest, valid_for).await?;
        if location.is_some() {
            // Nothing is open yet: the client fetches it later, and not from this process.
            self.leases.accessed(digest, Instant::now());
        }
        Ok(location)
    }

    forward!(this => &this.store; blob, tags, referrers, report_corrupt);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ContentStore + Clone> ContentStore for LeasedStore<S> {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        let writer = self.store.write_blob().await?;
        Ok(Box::new(LeasedWriter { writer, store: self.store.clone(), leases: self.leases.clone() }))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let link = self.store.link_blob(repository, digest);
        guarded_write(&self.store, &self.leases, digest, std::slice::from_ref(repository), link).await
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        let _lease = self.leases.lease([digest]).await;
        self.store.has_blob(digest).await
    }

    async fn read_stored(&self, digest: &Digest, bytes: Range<u64>) -> Result<Bytes, SourceError> {
        let _lease = self.leases.lease([digest]).await;
        self.store.read_stored(digest, bytes).await
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let lease = Arc::new(self.leases.lease_manifest(manifest).await?);
        self.put_manifest_under(lease, repository, manifest, tag).await
    }

    forward!(this => &this.store; check_writable);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: RegistryStore + Clone> RegistryStore for LeasedStore<S> {
    async fn upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Box<dyn Upload>, SourceError> {
        let upload = self.store.upload(repository, id).await?;
        let (store, leases, repository) = (self.store.clone(), self.leases.clone(), repository.clone());
        Ok(Box::new(LeasedUpload { upload, store, leases, repository }))
    }

    forward!(this => &this.store;
        delete_tag, delete_manifest, unlink_blob, start_upload, purge_uploads,
        repositories, manifests, linked_blobs, blobs, remove_blob,
        quarantine_blob, metadata, put_metadata, all_metadata, free_bytes);
}

#[derive(Debug)]
struct LeasedWriter<S> {
    writer: Box<dyn BlobWriter>,
    store: S,
    leases: Leases,
}

#[async_trait]
impl<S: ContentStore> BlobWriter for LeasedWriter<S> {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        self.writer.append(chunks).await
    }

    fn spool(&self) -> Arc<dyn BlobSpool> {
        self.writer.spool()
    }

    async fn publish(
        self: Box<Self>,
        verified: Verified,
        repositories: &[RepositoryName],
    ) -> Result<(), SourceError> {
        let Self { writer, store, leases } = *self;
        let digest = verified.digest().clone();
        let publish = writer.publish(verified, repositories);
        guarded_write(&store, &leases, &digest, repositories, publish).await
    }
}

#[derive(Debug)]
struct LeasedUpload<S> {
    upload: Box<dyn Upload>,
    store: S,
    leases: Leases,
    repository: RepositoryName,
}

#[async_trait]
impl<S: RegistryStore> Upload for LeasedUpload<S> {
    fn offset(&self) -> u64 {
        self.upload.offset()
    }

    fn batch_bytes(&self) -> usize {
        self.upload.batch_bytes()
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        self.upload.append(chunks).await
    }

    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError> {
        let Self { upload, store, leases, repository } = *self;
        guarded_write(&store, &leases, expected, &[repository], upload.finish(expected)).await
    }

    async fn cancel(self: Box<Self>) -> Result<(), SourceError> {
        self.upload.cancel().await
    }
}
