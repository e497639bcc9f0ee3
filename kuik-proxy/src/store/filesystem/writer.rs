//! Writes a blob into an unpublished file, and reads it while it grows.

use std::{
    fs::File,
    io::{self, IoSlice, Write as _},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{BlobSpool, BlobWriter, SourceError, SourceErrorKind, Verified},
    reference::RepositoryName,
};

use super::{
    Shared, blocking, map,
    publish::{Content, Durability, Unpublished},
};

/// The writer of one blob. Its file appends only: each `append` writes after the last byte that was kept.
#[derive(Debug)]
pub(super) struct FileWriter {
    store: Arc<Shared>,
    unpublished: Option<Unpublished>,
    spool: Arc<FileSpool>,
    written: u64,
    durability: Durability,
}

/// A second handle on the file, so that it can be read whatever becomes of its name.
#[derive(Debug)]
struct FileSpool {
    file: Arc<File>,
}

impl FileWriter {
    /// Blocks on the disk.
    pub(super) fn create(store: Arc<Shared>, durability: Durability) -> io::Result<Self> {
        let unpublished = Unpublished::create(&store.layout.unpublished())?;
        let file = Arc::new(unpublished.file().try_clone()?);
        let spool = Arc::new(FileSpool { file });
        Ok(Self { store, unpublished: Some(unpublished), spool, written: 0, durability })
    }
}

#[async_trait]
impl BlobWriter for FileWriter {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        let file = self.spool.file.clone();
        let chunks = chunks.to_vec();
        let written = blocking("append to a blob", move || write_all(&file, &chunks)).await?;
        self.written += written;
        Ok(())
    }

    fn spool(&self) -> Arc<dyn BlobSpool> {
        self.spool.clone()
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

#[async_trait]
impl BlobSpool for FileSpool {
    async fn read(&self, start: u64, end: u64) -> Result<Bytes, SourceError> {
        let file = self.file.clone();
        blocking("read a blob that is being written", move || map::window(&file, start, end)).await
    }
}

/// Writes all chunks with as few system calls as the kernel allows; returns how many bytes they had.
pub(super) fn write_all(mut file: &File, chunks: &[Bytes]) -> io::Result<u64> {
    let total: usize = chunks.iter().map(Bytes::len).sum();
    let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total as u64)
}
