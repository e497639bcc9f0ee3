//! [`ContentStore`] of a [`MemoryStore`].

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::{MemoryStore, absent};
use kuik_core::{
    content::{
        BlobSpool, BlobWriter, ContentStore, Digest, Manifest, SourceError, SourceErrorKind, Verified,
    },
    reference::{RepositoryName, Tag},
};

#[async_trait]
impl ContentStore for MemoryStore {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        Ok(Box::new(Writer { store: self.clone(), spool: Arc::default() }))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let mut state = self.state();
        let kept = state.blobs.get(digest).cloned();
        let kept = kept.ok_or_else(|| absent(format!("link blob {digest} into {repository}")))?;
        state.keep(digest.clone(), kept.bytes);
        state.repository_mut(repository)?.layers.insert(digest.clone());
        Ok(())
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        Ok(self.state().blobs.get(digest).map(|kept| kept.bytes.len() as u64))
    }

    async fn read_stored(&self, digest: &Digest, bytes: Range<u64>) -> Result<Bytes, SourceError> {
        let kept = self.state().blobs.get(digest).map(|kept| kept.bytes.clone());
        let kept = kept.ok_or_else(|| absent(format!("read stored blob {digest}")))?;
        let offset = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(kept.len());
        Ok(kept.slice(offset(bytes.start)..offset(bytes.end)))
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let mut state = self.state();
        let digest = manifest.digest();
        let found = state.repository_mut(repository)?;
        found.manifests.insert(digest.clone());
        found.tags.extend(tag.map(|tag| (tag.clone(), digest.clone())));
        state.keep(digest.clone(), manifest.bytes().clone());
        Ok(())
    }

    async fn check_writable(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

#[derive(Debug)]
struct Writer {
    store: MemoryStore,
    spool: Arc<Spool>,
}

#[derive(Debug, Default)]
struct Spool(Mutex<Vec<u8>>);

impl Spool {
    fn written(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock()
    }
}

#[async_trait]
impl BlobWriter for Writer {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        let mut written = self.spool.written();
        chunks.iter().for_each(|chunk| written.extend_from_slice(chunk));
        Ok(())
    }

    fn spool(&self) -> Arc<dyn BlobSpool> {
        self.spool.clone()
    }

    async fn publish(
        self: Box<Self>,
        verified: Verified,
        repositories: &[RepositoryName],
    ) -> Result<(), SourceError> {
        let bytes = Bytes::from(self.spool.written().clone());
        let digest = verified.digest();
        if verified.size() != bytes.len() as u64 {
            let attempted = format!("publish blob {digest}: the written bytes are not the verified ones");
            return Err(SourceError::new(SourceErrorKind::Storage, attempted));
        }
        let mut state = self.store.state();
        for repository in repositories {
            state.repository_mut(repository)?.layers.insert(digest.clone());
        }
        state.keep(digest.clone(), bytes);
        Ok(())
    }
}

#[async_trait]
impl BlobSpool for Spool {
    async fn read(&self, start: u64, end: u64) -> Result<Bytes, SourceError> {
        let offset = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let part = self.written().get(offset(start)..offset(end)).map(Bytes::copy_from_slice);
        part.ok_or_else(|| {
            SourceError::new(SourceErrorKind::Storage, "read more of a blob than was written".to_owned())
        })
    }
}
