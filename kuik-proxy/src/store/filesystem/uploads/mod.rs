//! Uploads of clients, stored in chunks like those of Docker's registry (`_uploads/UUID/data`).
//!
//! An upload exists as soon as its `data` does. A request that uses it holds its [`Lease`]; between two requests the
//! lease is free, and the running hash is kept. After a restart, an upload resumes from the end of its `data`: after
//! a crash between write and response, that may be beyond the acknowledged offset, never before it. The whole upload
//! is hashed at its end, so nothing depends on the bytes on disk.

mod upload;

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    num::NonZeroUsize,
    sync::Arc,
    time::SystemTime,
};

use kuik_core::content::{Hashing, UploadId};
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};

pub(super) use self::upload::FileUpload;
use super::{
    Shared,
    layout::{RepositoryDir, UploadDir},
    publish::{self, Durability, absent_is},
    walk,
};
use crate::store::started_at;

/// Number of idle uploads whose running hash is kept, so that they need not be read again at their end. A few hundred
/// bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// Uploads that this process has used.
#[derive(Debug)]
pub(super) struct Uploads(Mutex<Known>);

#[derive(Debug)]
struct Known {
    leased: HashSet<UploadDir>,
    hashed: LruCache<UploadDir, Hashing>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self(Mutex::new(Known { leased: HashSet::new(), hashed: LruCache::new(REMEMBERED) }))
    }
}

/// Exclusive lease on an upload. Dropping it releases the upload, with its running hash.
#[derive(Debug)]
struct Lease {
    store: Arc<Shared>,
    dir: UploadDir,
    hashing: Option<Hashing>,
}

impl Uploads {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock()
    }
}

impl Lease {
    /// Returns `None` if another request holds the upload.
    fn take(store: &Arc<Shared>, dir: UploadDir) -> Option<Self> {
        let mut known = store.uploads.known();
        if !known.leased.insert(dir.clone()) {
            return None;
        }
        let hashing = known.hashed.pop(&dir);
        drop(known);
        Some(Self { store: store.clone(), dir, hashing })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut known = self.store.uploads.known();
        known.leased.remove(&self.dir);
        if let Some(hashing) = self.hashing.take() {
            known.hashed.put(self.dir.clone(), hashing);
        }
    }
}

/// Begins an upload. Blocks on the disk.
pub(super) fn start(
    store: &Shared,
    repository: &RepositoryDir,
    now: SystemTime,
    durability: Durability,
) -> io::Result<UploadId> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let id = UploadId::from_random(random);
    let dir = repository.upload(&id);
    let started_at = started_at::to_text(now)?;
    publish::write_file(&store.layout.unpublished(), &dir.started_at(), started_at.as_bytes(), durability)?;
    File::create_new(dir.data())?;
    if durability == Durability::Acknowledged {
        publish::sync_dir(dir.path())?;
    }
    Ok(id)
}

/// Removes unleased uploads with no append since `idle_since`; returns their number.
pub(super) fn purge(store: &Arc<Shared>, idle_since: SystemTime) -> io::Result<u64> {
    let mut purged = 0;
    for repository in walk::repositories(store.layout.repositories()) {
        let (_, repository) = repository?;
        for dir in walk::uploads(&repository) {
            let dir = dir?;
            let is_idle =
                |dir: &UploadDir| Ok::<_, io::Error>(last_used(dir)?.is_some_and(|used| used < idle_since));
            // Checked before it is leased: a client that resumes it now must not get a conflict.
            if !is_idle(&dir)? {
                continue;
            }
            let Some(mut lease) = Lease::take(store, dir) else { continue };
            if is_idle(&lease.dir)? {
                lease.hashing = None;
                remove(&lease.dir)?;
                purged += 1;
            }
        }
    }
    Ok(purged)
}

/// Returns the time of the start or last append of an upload; `None` if it is gone.
fn last_used(dir: &UploadDir) -> io::Result<Option<SystemTime>> {
    let modified = |path| match fs::metadata(path) {
        Ok(metadata) => metadata.modified().map(Some),
        Err(error) => absent_is(None, error),
    };
    let started = fs::read_to_string(dir.started_at()).ok().and_then(|text| started_at::from_text(&text));
    let appended = modified(dir.data())?;
    match started.max(appended) {
        // Left over from an interrupted end of an upload.
        None => modified(dir.path().to_owned()),
        used => Ok(used),
    }
}

/// Removes an upload, `data` first, which ends its existence.
fn remove(dir: &UploadDir) -> io::Result<()> {
    fs::remove_file(dir.data()).or_else(|error| absent_is((), error))?;
    fs::remove_dir_all(dir.path()).or_else(|error| absent_is((), error))
}
