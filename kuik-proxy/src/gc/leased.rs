//! A store whose writers the collector knows of.
//!
//! Every write leases what it names while it goes on, and so does every question whether something is there: whoever
//! asked that may be about to name it, or to pull what it holds, and so the answer is remembered too. Reads of blobs
//! pass through as they are: what is open stays readable.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{
        BlobLocation, BlobSpool, BlobWriter, ContentSource, ContentStore, Descriptor, Digest, Freshness,
        ManagedStore, Manifest, Served, SourceError, SourceErrorKind, TagOrDigest, Upload, UploadId,
        Verified,
    },
    forward,
    reference::{RepositoryName, Tag},
};

use super::{Lease, Leases, published::published};

/// A store `S` that is collected while it is used.
#[derive(Debug, Clone)]
pub struct Leased<S> {
    store: S,
    leases: Leases,
}

impl<S> Leased<S> {
    /// `store`, used under `leases`, which its [`Collector`](super::Collector) has too.
    pub fn new(store: S, leases: Leases) -> Self {
        Self { store, leases }
    }

    /// The leases that the store is used under.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Remembers who asked for what and has it.
    fn asked<T>(
        &self,
        digest: impl FnOnce(&T) -> Digest,
        answer: Result<Served<T>, SourceError>,
    ) -> Result<Served<T>, SourceError> {
        if let Ok(served) = &answer {
            self.leases.asked(&digest(&served.content), Instant::now());
        }
        answer
    }
}

impl<S: ContentStore + Clone> Leased<S> {
    /// Keeps a manifest as [`put_manifest`](ContentStore::put_manifest) does, under a lease of
    /// [`lease_manifest`](Leases::lease_manifest) that the caller has had since before it looked for what the manifest
    /// names.
    ///
    /// # Errors
    /// Those of the store, and `Unavailable` where the lease does not count any more.
    pub async fn put_manifest_under(
        &self,
        lease: Arc<Lease>,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let (store, repository, manifest) = (self.store.clone(), repository.clone(), manifest.clone());
        let tag = tag.cloned();
        // Disk work goes on when its caller leaves, and the lease has to outlast it.
        let put = tokio::spawn(async move {
            lease.within(store.put_manifest(&repository, &manifest, tag.as_ref())).await
        });
        put.await.unwrap_or_else(|error| {
            let attempted = "keep a manifest: its task ended early";
            Err(SourceError::caused_by(SourceErrorKind::Storage, attempted, error))
        })
    }
}

#[async_trait]
impl<S: ContentStore + Clone> ContentSource for Leased<S> {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        let digest = if let TagOrDigest::Digest(digest) = at { Some(digest) } else { None };
        let _lease = self.leases.lease(digest).await;
        self.asked(|found| found.digest.clone(), self.store.resolve(repository, at, freshness).await)
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        let digest = if let TagOrDigest::Digest(digest) = at { Some(digest) } else { None };
        let _lease = self.leases.lease(digest).await;
        self.asked(|found| found.digest().clone(), self.store.manifest(repository, at, freshness).await)
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        let _lease = self.leases.lease([digest]).await;
        self.asked(|_| digest.clone(), self.store.blob_size(repository, digest).await)
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
            // Nothing is open yet: the client comes for it, and not to us.
            self.leases.asked(digest, Instant::now());
        }
        Ok(location)
    }

    forward!(this => &this.store; blob, tags, referrers);
}

#[async_trait]
impl<S: ContentStore + Clone> ContentStore for Leased<S> {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        let writer = self.store.write_blob().await?;
        Ok(Box::new(LeasedWriter { writer, store: self.store.clone(), leases: self.leases.clone() }))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let link = self.store.link_blob(repository, digest);
        published(&self.store, &self.leases, digest, std::slice::from_ref(repository), link).await
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        let _lease = self.leases.lease([digest]).await;
        self.store.has_blob(digest).await
    }

    async fn peek_blob(&self, digest: &Digest, bytes: Range<u64>) -> Result<Bytes, SourceError> {
        let _lease = self.leases.lease([digest]).await;
        self.store.peek_blob(digest, bytes).await
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
impl<S: ManagedStore + Clone> ManagedStore for Leased<S> {
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
        quarantine_blob, note, put_note, notes, free_bytes);
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
        published(&store, &leases, &digest, repositories, publish).await
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
impl<S: ManagedStore> Upload for LeasedUpload<S> {
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
        published(&store, &leases, expected, &[repository], upload.finish(expected)).await
    }

    async fn cancel(self: Box<Self>) -> Result<(), SourceError> {
        self.upload.cancel().await
    }
}
