//! Spool file of a blob, readable while it grows.

use std::{
    fs::File,
    io::{self, IoSlice, Write as _},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::content::{BlobSpool, SourceError};

use super::{blocking, map};

/// Handle on the file, which stays readable if its name is removed. Writing appends only: each `append` writes after
/// the last byte stored.
#[derive(Debug, Clone)]
pub(super) struct FileSpool {
    file: Arc<File>,
}

impl FileSpool {
    /// Reads and writes `file`.
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(file) }
    }

    /// Writes the next bytes; returns how many they were.
    pub(super) async fn append(&self, chunks: &[Bytes]) -> Result<u64, SourceError> {
        let (file, chunks) = (self.file.clone(), chunks.to_vec());
        blocking("append to a blob", move || write_all(&file, &chunks)).await
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
