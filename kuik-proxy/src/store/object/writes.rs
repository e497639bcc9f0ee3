//! Writes: blobs, links to them, manifests and tags.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{BlobWriter, ContentStore, Digest, MAX_MANIFEST_BYTES, Manifest, SourceError, SourceErrorKind},
    reference::{RepositoryName, Tag},
};

use super::{ObjectStorage, RepositoryKey, Shared, writer::ScratchWriter};
use crate::store::layout;

/// Probe object, overwritten to check write access.
const PROBE: &str = ".kuik/probe";

#[async_trait]
impl ContentStore for ObjectStorage {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        Ok(Box::new(ScratchWriter::create(self.shared.clone()).await?))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let attempted = format!("link blob {digest} into {repository}");
        let link = RepositoryKey::of(repository)?.at(layout::layer_link(digest));
        let store = &self.shared;
        // Renewed before it is checked: from then on, it is not removed.
        store.renew(&attempted, digest).await?;
        if store.bucket.head(&attempted, &layout::blob(digest)).await?.is_none() {
            return Err(SourceError::new(SourceErrorKind::NotFound, attempted));
        }
        store.write_link(&attempted, &link, digest).await
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        let found = self.shared.bucket.head(&format!("find blob {digest}"), &layout::blob(digest)).await?;
        Ok(found.map(|found| found.size))
    }

    async fn read_stored(&self, digest: &Digest, bytes: Range<u64>) -> Result<Bytes, SourceError> {
        self.shared.bucket.get_range(&format!("read blob {digest}"), &layout::blob(digest), bytes).await
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let attempted = format!("store manifest {} of {repository}", manifest.digest());
        let repository = RepositoryKey::of(repository)?;
        let _guard = match self.shared.lock(&repository) {
            Some(lock) => Some(lock.read().await),
            None => None,
        };
        self.shared.put_manifest(&attempted, &repository, manifest, tag).await
    }

    async fn check_writable(&self) -> Result<(), SourceError> {
        let attempted = "write and read a probe";
        let bucket = &self.shared.bucket;
        bucket.put(attempted, PROBE, Bytes::from_static(b"probe")).await?;
        match bucket.read(attempted, PROBE, 5).await? {
            Some(_) => Ok(()),
            None => {
                let attempted = format!("{attempted} in {}: it was not found", bucket.name());
                Err(SourceError::new(SourceErrorKind::Storage, attempted))
            }
        }
    }
}

impl Shared {
    async fn put_manifest(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let digest = manifest.digest();
        let blob = layout::blob(digest);
        // Compared, not only checked for existence: writing it again repairs a damaged one.
        let kept = self.bucket.read(attempted, &blob, MAX_MANIFEST_BYTES as u64).await?;
        if kept.is_some_and(|kept| kept == *manifest.bytes()) {
            self.renew(attempted, digest).await?;
        } else {
            self.bucket.put(attempted, &blob, manifest.bytes().clone()).await?;
        }
        // The order matters: a reader that sees a link finds its target, and no referrer is visible without its index
        // entry.
        if let Some(subject) = manifest.subject() {
            let link = repository.at(layout::referrer_link(&subject, digest));
            self.write_link(attempted, &link, digest).await?;
        }
        self.write_link(attempted, &repository.at(layout::revision_link(digest)), digest).await?;
        if let Some(tag) = tag {
            let history = repository.at(layout::tag_history_link(tag, digest));
            self.write_link(attempted, &history, digest).await?;
            self.write_link(attempted, &repository.at(layout::tag_link(tag)), digest).await?;
        }
        Ok(())
    }
}
