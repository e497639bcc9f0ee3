//! Blob writer: writes into an unlinked file of the scratch directory, and from there into the bucket.
//!
//! Only verified bytes are sent to the bucket, directly under the blob's final key: canceled fills leave no parts,
//! and nothing is copied within the bucket. The bytes are mapped from the file, so that a fill needs no memory of its
//! own.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{BlobSpool, BlobWriter, SourceError, SourceErrorKind, Verified},
    reference::RepositoryName,
};

use super::{RepositoryKey, Shared, multipart::Multipart};
use crate::store::{blocking, layout, spool::FileSpool};

/// Writer of one blob.
#[derive(Debug)]
pub(super) struct ScratchWriter {
    store: Arc<Shared>,
    spool: FileSpool,
    written: u64,
}

impl ScratchWriter {
    pub(super) async fn create(store: Arc<Shared>) -> Result<Self, SourceError> {
        let dir = store.scratch_dir.clone();
        let attempted = format!("start a new blob in the scratch directory {}", dir.display());
        let file = blocking(attempted.clone(), move || tempfile::tempfile_in(dir)).await;
        let file = file.map_err(|error| match error.is_not_found() {
            // A blob that is being written must not be reported as absent.
            true => SourceError::new(
                SourceErrorKind::Storage,
                format!("{attempted}: the directory does not exist"),
            ),
            false => error,
        })?;
        Ok(Self { store, spool: FileSpool::new(file), written: 0 })
    }
}

#[async_trait]
impl BlobWriter for ScratchWriter {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        self.written += self.spool.append(chunks).await?;
        Ok(())
    }

    fn spool(&self) -> Arc<dyn BlobSpool> {
        Arc::new(self.spool.clone())
    }

    async fn publish(
        self: Box<Self>,
        verified: Verified,
        repositories: &[RepositoryName],
    ) -> Result<(), SourceError> {
        let digest = verified.digest();
        let attempted = format!("publish blob {digest}");
        if verified.size() != self.written {
            let (hashed, written) = (verified.size(), self.written);
            return Err(SourceError::new(
                SourceErrorKind::Storage,
                format!("{attempted}: {hashed} bytes were verified and {written} were written"),
            ));
        }
        let mut blob = Multipart::new(&self.store, &attempted, layout::blob(digest), self.written);
        let mut sent = 0;
        while sent < self.written {
            let bytes = self.spool.read(sent, self.written).await?;
            sent += bytes.len() as u64;
            blob.write(bytes).await?;
        }
        blob.complete().await?;
        for repository in repositories {
            let link = RepositoryKey::of(repository)?.at(layout::layer_link(digest));
            self.store.write_link(&attempted, &link, digest).await?;
        }
        Ok(())
    }
}
