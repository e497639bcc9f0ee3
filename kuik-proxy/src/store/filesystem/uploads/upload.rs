//! Open upload, leased by one request.
//!
//! Disk work continues after its caller is dropped: the open file and the lease travel with it, so no other request
//! can lease the upload before the work is done.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{
        Algorithm, Digest, DigestMismatch, Hashing, SourceError, SourceErrorKind, Upload, UploadId, Verified,
    },
    reference::RepositoryName,
};

use super::{Lease, remove};
use crate::store::{
    blocking,
    filesystem::{
        Shared,
        layout::RepositoryDir,
        publish::{self, Durability},
    },
    spool::write_all,
};

/// Size of a read when data is hashed again.
const BUFFER: usize = 1 << 20;

/// An upload, used by one request at a time.
#[derive(Debug)]
pub(in super::super) struct FileUpload {
    name: String,
    repository: RepositoryDir,
    /// Absent after a failure that left the file size unknown: the next lease reads it.
    open: Option<Open>,
    offset: u64,
    durability: Durability,
}

#[derive(Debug)]
struct Open {
    lease: Lease,
    file: File,
    offset: u64,
}

impl FileUpload {
    /// Opens the upload `id` to resume it.
    pub(in super::super) async fn open(
        store: &Arc<Shared>,
        repository: &RepositoryName,
        id: &UploadId,
        durability: Durability,
    ) -> Result<Self, SourceError> {
        let dir = store.layout.repository(repository)?;
        let name = format!("upload {} of {repository}", id.as_str());
        let Some(lease) = Lease::take(store, dir.upload(id)) else {
            return Err(SourceError::new(
                SourceErrorKind::Unavailable,
                format!("resume {name}: another request is using it"),
            ));
        };
        let open = blocking(format!("resume {name}"), move || Open::new(lease)).await?;
        Ok(Self { name, repository: dir, offset: open.offset, open: Some(open), durability })
    }

    fn take(&mut self, attempted: &str) -> Result<Open, SourceError> {
        self.open.take().ok_or_else(|| {
            let attempted = format!("{attempted}: an earlier operation failed, resume the upload");
            SourceError::new(SourceErrorKind::Unavailable, attempted)
        })
    }
}

#[async_trait]
impl Upload for FileUpload {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        let attempted = format!("append to {}", self.name);
        let mut open = self.take(&attempted)?;
        let (chunks, durability) = (chunks.to_vec(), self.durability);
        let (open, appended) = blocking(attempted.clone(), move || {
            let appended = open.append(&chunks, durability);
            Ok(match &appended {
                Err(_) if open.take_back().is_err() => (None, appended),
                _ => (Some(open), appended),
            })
        })
        .await?;
        self.offset = open.as_ref().map_or(self.offset, |open| open.offset);
        self.open = open;
        appended.map_err(|error| SourceError::storage(attempted, error))
    }

    async fn finish(mut self: Box<Self>, expected: &Digest) -> Result<(), SourceError> {
        let attempted = format!("finish {} as {expected}", self.name);
        let Some(algorithm) = expected.algorithm() else {
            let attempted = format!("{attempted}: digests of this algorithm cannot be computed here");
            return Err(SourceError::new(SourceErrorKind::Unsupported, attempted));
        };
        let mut open = self.take(&attempted)?;
        let (repository, expected, durability) = (self.repository, expected.clone(), self.durability);
        let outcome = blocking(attempted.clone(), move || match open.verify(algorithm, &expected)? {
            Ok(verified) => open.publish(&repository, &verified, durability).map(Ok),
            Err(mismatch) => open.end().map(|()| Err(mismatch)),
        })
        .await?;
        outcome
            .map_err(|mismatch| SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, mismatch))
    }

    async fn cancel(mut self: Box<Self>) -> Result<(), SourceError> {
        let attempted = format!("cancel {}", self.name);
        let open = self.take(&attempted)?;
        blocking(attempted, move || open.end()).await
    }
}

impl Open {
    fn new(mut lease: Lease) -> io::Result<Self> {
        let file = File::options().read(true).append(true).open(lease.dir.data())?;
        let offset = file.metadata()?.len();
        if lease.hashing.as_ref().is_none_or(|hashing| hashing.size() != offset) {
            lease.hashing = (offset == 0).then(|| Hashing::new(Algorithm::Sha256));
        }
        Ok(Self { lease, file, offset })
    }

    fn append(&mut self, chunks: &[Bytes], durability: Durability) -> io::Result<()> {
        let written = write_all(&self.file, chunks)?;
        if durability == Durability::Acknowledged {
            self.file.sync_data()?;
        }
        if let Some(hashing) = &mut self.lease.hashing {
            chunks.iter().for_each(|chunk| hashing.update(chunk));
        }
        self.offset += written;
        Ok(())
    }

    /// Truncates unacknowledged bytes, so that the client can send them again.
    fn take_back(&self) -> io::Result<()> {
        self.file.set_len(self.offset)
    }

    /// Verifies all of the data. It is read again if the running hash is of another algorithm, or an earlier process
    /// wrote some of it.
    fn verify(
        &mut self,
        algorithm: Algorithm,
        expected: &Digest,
    ) -> io::Result<Result<Verified, DigestMismatch>> {
        let running = self.lease.hashing.clone().filter(|hashing| hashing.algorithm() == algorithm);
        let hashing = match running {
            Some(hashing) if hashing.size() == self.offset => hashing,
            _ => hash(&self.file, algorithm)?,
        };
        Ok(hashing.verify(expected))
    }

    /// Publishes the data as a blob of `repository`. A crash in between leaves a blob without a link.
    fn publish(
        mut self,
        repository: &RepositoryDir,
        verified: &Verified,
        durability: Durability,
    ) -> io::Result<()> {
        let store = self.lease.store.clone();
        let digest = verified.digest();
        // An upload may have taken days; from now on its age is that of a new blob.
        self.file.set_modified(SystemTime::now())?;
        self.file.sync_all()?;
        publish::rename(&self.lease.dir.data(), &store.layout.blob(digest), durability)?;
        self.lease.hashing = None;
        store.write_link(&repository.layer_link(digest), digest, durability)?;
        // The rest has no data and is not an upload. If it cannot be removed, a later purge does it.
        let _ = remove(&self.lease.dir);
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.lease.hashing = None;
        remove(&self.lease.dir)
    }
}

fn hash(file: &File, algorithm: Algorithm) -> io::Result<Hashing> {
    let mut hashing = Hashing::new(algorithm);
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read_at(&mut buffer, hashing.size()) {
            Ok(0) => return Ok(hashing),
            Ok(read) => hashing.update(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
