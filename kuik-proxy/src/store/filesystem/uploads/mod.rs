//! Uploads: what clients push, piece by piece, where Docker's registry keeps it (`_uploads/UUID/data`).
//!
//! An upload is there from the moment that its `data` is. Whoever has it holds its [`Lease`]; between two requests a
//! lease is nobody's, and what was hashed so far is remembered. After a restart, an upload goes on from the end of its
//! `data`: that may be behind what was acknowledged, where a crash came between writing and answering, and never
//! before it. It is hashed as a whole in the end, so nothing depends on what is there.

mod upload;

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use kuik_core::content::{Hashing, UploadId};
use lru::LruCache;

pub(super) use self::upload::FileUpload;
use super::{
    Shared,
    layout::{RepositoryDir, UploadDir},
    publish::{self, Durability, absent_is},
    walk,
};
use crate::store::started_at;

/// How many uploads that nobody has at the moment need not be read again at their end. A few hundred bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// The uploads that this process has seen.
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

/// The right to change an upload. Dropping it hands it back, with what was hashed.
#[derive(Debug)]
struct Lease {
    store: Arc<Shared>,
    dir: UploadDir,
    hashing: Option<Hashing>,
}

impl Uploads {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// `None` where somebody else has the upload.
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

/// Removes the uploads that nobody has and that nothing was appended to since `idle_since`; returns how many.
pub(super) fn purge(store: &Arc<Shared>, idle_since: SystemTime) -> io::Result<u64> {
    let mut purged = 0;
    for repository in walk::repositories(store.layout.repositories()) {
        let (_, repository) = repository?;
        for dir in walk::uploads(&repository) {
            let dir = dir?;
            let is_idle =
                |dir: &UploadDir| Ok::<_, io::Error>(last_used(dir)?.is_some_and(|used| used < idle_since));
            // Looked at before it is taken: whoever goes on with it just now is not to be told that somebody has it.
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

/// When an upload was begun or appended to last; `None` where it is gone.
fn last_used(dir: &UploadDir) -> io::Result<Option<SystemTime>> {
    let modified = |path| match fs::metadata(path) {
        Ok(metadata) => metadata.modified().map(Some),
        Err(error) => absent_is(None, error),
    };
    let started = fs::read_to_string(dir.started_at()).ok().and_then(|text| started_at::from_text(&text));
    let appended = modified(dir.data())?;
    match started.max(appended) {
        // What an end of an upload left that was interrupted.
        None => modified(dir.path().to_owned()),
        used => Ok(used),
    }
}

/// Removes an upload; it is gone with its `data`, which goes first.
fn remove(dir: &UploadDir) -> io::Result<()> {
    fs::remove_file(dir.data()).or_else(|error| absent_is((), error))?;
    fs::remove_dir_all(dir.path()).or_else(|error| absent_is((), error))
}
