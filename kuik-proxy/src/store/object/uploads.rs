//! Uploads of clients, stored in chunks as objects below `_uploads/UUID`.
//!
//! An upload exists as soon as its `startedat` does. Each appended chunk is an object named by its offset
//! (`parts/00000000000000000000`), which is put only if the key is free: if two processes append to one upload at the
//! same offset, one of them fails. The size of an upload is therefore what a list shows, to every process and after
//! every crash.

use std::{collections::HashSet, io, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use kuik_core::{
    content::{Digest, Hashing, SourceError, SourceErrorKind, Upload, UploadId},
    reference::RepositoryName,
};
use parking_lot::{Mutex, MutexGuard};

use super::{
    RepositoryKey, Shared,
    bucket::Found,
    multipart::{Multipart, PART_BYTES},
};
use crate::store::{layout, started_at};

/// Keys of the uploads leased in this process.
pub(super) type Leases = Mutex<HashSet<String>>;

/// Exclusive lease on an upload, within this process. Dropping it releases the upload.
#[derive(Debug)]
struct Lease {
    store: Arc<Shared>,
    key: String,
}

impl Lease {
    /// Returns `None` if another request holds the upload.
    fn take(store: &Arc<Shared>, key: String) -> Option<Self> {
        leased(&store.leases).insert(key.clone()).then(|| Self { store: store.clone(), key })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        leased(&self.store.leases).remove(&self.key);
    }
}

fn leased(leases: &Leases) -> MutexGuard<'_, HashSet<String>> {
    leases.lock()
}

/// A chunk of an upload.
#[derive(Debug)]
struct Part {
    key: String,
    size: u64,
}

/// An upload, used by one request at a time.
#[derive(Debug)]
pub(super) struct ObjectUpload {
    name: String,
    repository: RepositoryKey,
    lease: Lease,
    parts: Vec<Part>,
    offset: u64,
}

/// Begins an upload.
pub(super) async fn start(
    store: &Shared,
    repository: &RepositoryName,
    now: SystemTime,
) -> Result<UploadId, SourceError> {
    let attempted = format!("begin an upload into {repository}");
    let failed = |error| SourceError::storage(attempted.clone(), error);
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| failed(io::Error::other(error.to_string())))?;
    let id = UploadId::from_random(random);
    let text = started_at::to_text(now).map_err(failed)?;
    let key = RepositoryKey::of(repository)?.at(layout::upload(&id));
    store.bucket.put(&attempted, &format!("{key}/{}", layout::STARTED_AT), Bytes::from(text)).await?;
    Ok(id)
}

/// Removes uploads that are not leased in this process, with no append since `idle_since`; returns their number.
pub(super) async fn purge(store: &Arc<Shared>, idle_since: SystemTime) -> Result<u64, SourceError> {
    let attempted = "purge idle uploads";
    let mut listed = store.bucket.list(attempted.to_owned(), layout::REPOSITORIES, None);
    let mut purged = 0;
    let mut current: Option<(String, SystemTime)> = None;
    // All objects of an upload are adjacent.
    loop {
        let found = listed.try_next().await?;
        let next = found.as_ref().and_then(|found| Some((upload_of(&found.key)?, found.modified)));
        match (&mut current, &next) {
            (Some((key, used)), Some((next, modified))) if key == next => *used = (*used).max(*modified),
            _ => {
                let ended = std::mem::replace(&mut current, next.map(|(key, used)| (key.to_owned(), used)));
                if let Some((key, _)) = ended.filter(|(_, used)| *used < idle_since)
                    && let Some(lease) = Lease::take(store, key)
                {
                    remove(store, attempted, &lease.key).await?;
                    purged += 1;
                }
            }
        }
        if found.is_none() {
            return Ok(purged);
        }
    }
}

/// Returns the key of the upload that an object belongs to.
fn upload_of(key: &str) -> Option<&str> {
    let marker = format!("/{}/", layout::UPLOADS);
    let at = key.find(&marker)? + marker.len();
    let id = key.get(at..)?.split('/').next()?;
    id.parse::<UploadId>().ok()?;
    key.get(..at + id.len())
}

/// Removes an upload, `startedat` first, which ends its existence.
async fn remove(store: &Shared, attempted: &str, key: &str) -> Result<(), SourceError> {
    store.bucket.delete(attempted, &format!("{key}/{}", layout::STARTED_AT)).await?;
    store.bucket.delete_below(attempted, key).await
}

impl ObjectUpload {
    /// Opens the upload `id` to resume it.
    pub(super) async fn open(
        store: &Arc<Shared>,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Self, SourceError> {
        let name = format!("upload {} of {repository}", id.as_str());
        let attempted = format!("resume {name}");
        let repository = RepositoryKey::of(repository)?;
        let Some(lease) = Lease::take(store, repository.at(layout::upload(id))) else {
            return Err(SourceError::new(
                SourceErrorKind::Unavailable,
                format!("{attempted}: another request is using it"),
            ));
        };
        let found: Vec<Found> = store.bucket.list(attempted.clone(), &lease.key, None).try_collect().await?;
        let started = format!("{}/{}", lease.key, layout::STARTED_AT);
        if !found.iter().any(|found| found.key == started) {
            return Err(SourceError::new(SourceErrorKind::NotFound, attempted));
        }
        let (mut parts, mut offset) = (Vec::new(), 0);
        for found in found {
            if found.key == part(&lease.key, offset) {
                offset += found.size;
                parts.push(Part { key: found.key, size: found.size });
            }
        }
        Ok(Self { name, repository, lease, parts, offset })
    }

    /// Hashes the chunks and sends them to the blob's key, without making it visible there.
    async fn gather<'a>(
        &'a self,
        attempted: &'a str,
        expected: &Digest,
        mut hashing: Hashing,
    ) -> Result<(Multipart<'a>, Hashing), SourceError> {
        let store = &self.lease.store;
        let mut blob = Multipart::new(store, attempted, layout::blob(expected), self.offset);
        for part in &self.parts {
            let got = store.bucket.get(attempted, &part.key, None).await.map_err(|error| {
                // It existed: an upload that another process is ending must not be reported as absent.
                let attempted = format!("{attempted}: a chunk of it cannot be read");
                SourceError::caused_by(SourceErrorKind::Unavailable, attempted, error)
            })?;
            let mut chunks = got.into_stream();
            let before = hashing.size();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|error| store.bucket.failed(attempted, &error))?;
                hashing.update(&chunk);
                blob.write(chunk).await?;
            }
            if hashing.size() - before != part.size {
                let attempted = format!("{attempted}: a chunk of {} bytes was truncated", part.size);
                return Err(SourceError::new(SourceErrorKind::Storage, attempted));
            }
        }
        Ok((blob, hashing))
    }
}

#[async_trait]
impl Upload for ObjectUpload {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn batch_bytes(&self) -> usize {
        usize::try_from(PART_BYTES).unwrap_or(usize::MAX)
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        let size: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if size == 0 {
            return Ok(());
        }
        let attempted = format!("append to {}", self.name);
        let key = part(&self.lease.key, self.offset);
        let payload: object_store::PutPayload = chunks.iter().cloned().collect();
        if !self.lease.store.bucket.create(&attempted, &key, payload).await? {
            let attempted = format!("{attempted}: another process has appended to it");
            return Err(SourceError::new(SourceErrorKind::Unavailable, attempted));
        }
        self.parts.push(Part { key, size });
        self.offset += size;
        Ok(())
    }

    async fn finish(self: Box<Self>, expected: &Digest) -> Result<(), SourceError> {
        let attempted = format!("finish {} as {expected}", self.name);
        let Some(algorithm) = expected.algorithm() else {
            let attempted = format!("{attempted}: digests of this algorithm cannot be computed here");
            return Err(SourceError::new(SourceErrorKind::Unsupported, attempted));
        };
        let store = self.lease.store.clone();
        let (blob, hashing) = self.gather(&attempted, expected, Hashing::new(algorithm)).await?;
        match hashing.verify(expected) {
            Ok(_) => blob.complete().await?,
            Err(mismatch) => {
                drop(blob);
                remove(&store, &attempted, &self.lease.key).await?;
                return Err(SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, mismatch));
            }
        }
        let link = self.repository.at(layout::layer_link(expected));
        store.write_link(&attempted, &link, expected).await?;
        remove(&store, &attempted, &self.lease.key).await
    }

    async fn cancel(self: Box<Self>) -> Result<(), SourceError> {
        remove(&self.lease.store, &format!("cancel {}", self.name), &self.lease.key).await
    }
}

/// Returns the key of the chunk at `offset`.
fn part(upload: &str, offset: u64) -> String {
    format!("{upload}/parts/{offset:020}")
}

#[cfg(test)]
mod tests {
    use super::upload_of;

    #[test]
    fn object_keys_identify_their_upload() {
        let upload = "r/app/_uploads/01234567-89ab-4def-8123-456789abcdef";
        for (key, expected) in [
            (format!("{upload}/startedat"), Some(upload)),
            (format!("{upload}/parts/00000000000000000000"), Some(upload)),
            ("r/app/_uploads/other/startedat".to_owned(), None),
            ("r/app/_layers/sha256/00/link".to_owned(), None),
        ] {
            assert_eq!(upload_of(&key), expected, "{key}");
        }
    }
}
