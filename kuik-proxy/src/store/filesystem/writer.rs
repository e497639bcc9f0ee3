//! Blob writer: writes into an unpublished file, which is readable while it grows.

use std::{io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{BlobSpool, BlobWriter, SourceError, SourceErrorKind, Verified},
    reference::RepositoryName,
};

use super::{
    Shared, blocking,
    publish::{Content, Durability, Unpublished},
};
use crate::store::spool::FileSpool;

/// Writer of one blob. Its file appends only: each `append` writes after the last byte stored.
#[derive(Debug)]
pub(super) struct FileWriter {
    store: Arc<Shared>,
    unpublished: Option<Unpublished>,
    spool: FileSpool,
    written: u64,
    durability: Durability,
}

impl FileWriter {
    /// Blocks on the disk.
    pub(super) fn create(store: Arc<Shared>, durability: Durability) -> io::Result<Self> {
        let unpublished = Unpublished::create(&store.layout.unpublished())?;
        // A second handle, so that the file stays readable if its name is removed.
        let spool = FileSpool::new(unpublished.file().try_clone()?);
        Ok(Self { store, unpublished: Some(unpublished), spool, written: 0, durability })
    }
}

#[async_trait]
impl BlobWriter for FileWriter {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        self.written += self.spool.append(chunks).await?;
        Ok(())
    }

    fn spool(&self) -> Arc<dyn BlobSpool> {
        Arc::new(self.spool.clone())
    }

    async fn publish(
        mut self: Box<Self>,
        verified: Verified,
        repositories: &[RepositoryName],
    ) -> Result<(), SourceError> {
        let digest = verified.digest().clone();
        let attempted = format!("publish blob {digest}");
        if verified.size() != self.written {
            let (hashed, written) = (verified.size(), self.written);
            return Err(SourceError::new(
                SourceErrorKind::Storage,
                format!("{attempted}: {hashed} bytes were verified and {written} were written"),
            ));
        }
        let Some(unpublished) = self.unpublished.take() else { return Ok(()) };
        let links = repositories
            .iter()
            .map(|repository| Ok(self.store.layout.repository(repository)?.layer_link(&digest)))
            .collect::<Result<Vec<_>, SourceError>>()?;
        let (store, durability) = (self.store.clone(), self.durability);
        blocking(attempted, move || {
            unpublished.publish(&store.layout.blob(&digest), Content::Trusted, durability)?;
            links.iter().try_for_each(|link| store.write_link(link, &digest, durability))
        })
        .await
    }
}
