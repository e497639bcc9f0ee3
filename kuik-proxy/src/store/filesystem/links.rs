//! Links: small files that name a repository's content, and the lock that guards them.
//!
//! Invariant: a reader that sees a tag finds its manifest in the repository. Writers put the manifest's link before
//! the tag's; deletes remove the tags' before the manifest's, and no write to the repository comes between.

use std::{
    array,
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use kuik_core::content::Digest;
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock};

use super::{
    Shared,
    layout::RepositoryDir,
    publish::{self, Durability, absent_is},
};

/// Number of locks that all repositories share, so that two busy ones rarely collide.
const STRIPES: usize = 64;

/// Lock on the manifests and tags of a repository: any number of writers at once, or one delete.
///
/// Guards travel with the disk work, so that a dropped caller does not end the protection.
#[derive(Debug)]
pub(super) struct RepositoryLocks {
    changes: [Arc<RwLock<()>>; STRIPES],
    deletes: [Arc<Mutex<()>>; STRIPES],
}

impl Default for RepositoryLocks {
    fn default() -> Self {
        Self { changes: array::from_fn(|_| Arc::default()), deletes: array::from_fn(|_| Arc::default()) }
    }
}

impl RepositoryLocks {
    /// Read-locked by writers, write-locked by deletes.
    pub(super) fn of(&self, repository: &RepositoryDir) -> Arc<RwLock<()>> {
        // The index is below the number of stripes, so it is never absent.
        self.changes.get(stripe(repository, STRIPES)).cloned().unwrap_or_default()
    }

    /// Admits one waiter for the other lock to the blocking pool. With many, no thread of the pool would be left for
    /// the holders they wait for.
    pub(super) async fn turn(&self, repository: &RepositoryDir) -> OwnedMutexGuard<()> {
        let deletes = self.deletes.get(stripe(repository, STRIPES)).cloned();
        deletes.unwrap_or_default().lock_owned().await
    }
}

/// Returns which of `stripes` a repository belongs to.
pub(super) fn stripe(repository: &RepositoryDir, stripes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    repository.hash(&mut hasher);
    usize::try_from(hasher.finish() % stripes as u64).unwrap_or_default()
}

impl Shared {
    /// Writes `digest` into `link`.
    pub(super) fn write_link(&self, link: &Path, digest: &Digest, durability: Durability) -> io::Result<()> {
        if read_link(link)?.is_some_and(|linked| linked == *digest) {
            return publish::confirm(link, durability);
        }
        publish::write_file(&self.layout.unpublished(), link, digest.as_str().as_bytes(), durability)
    }

    /// Returns the bytes of `digest`, if `link` names it.
    pub(super) fn open_linked(&self, link: &Path, digest: &Digest) -> io::Result<(File, u64)> {
        require_link(link, digest)?;
        let file = File::open(self.layout.blob(digest))?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// Updates the age of stored bytes to now, because new content relies on them: garbage collection keeps young
    /// content. Also makes them as durable as new ones.
    pub(super) fn renew(&self, digest: &Digest, durability: Durability) -> io::Result<()> {
        let blob = self.layout.blob(digest);
        let file = File::open(&blob)?;
        // A file of another owner (Docker's registry ran as another user) keeps its age.
        let _ = file.set_modified(SystemTime::now());
        publish::confirm(&blob, durability)
    }
}

/// Returns the content of `link`; `None` if it is absent or damaged.
pub(super) fn read_link(link: &Path) -> io::Result<Option<Digest>> {
    match fs::read_to_string(link) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => absent_is(None, error),
    }
}

/// Fails with `NotFound` unless `link` names `digest`.
pub(super) fn require_link(link: &Path, digest: &Digest) -> io::Result<()> {
    match read_link(link)? {
        Some(linked) if linked == *digest => Ok(()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}
