//! Links: small files that say what a repository has, and who may change them at once.
//!
//! Invariant: whoever sees a tag finds the manifest that it points at in the repository. Writers put the manifest's
//! link before the tag's; deletes take the tags' before the manifest's, and no write to the repository comes between.

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

/// How many locks all repositories share: enough that two which are busy seldom meet.
const STRIPES: usize = 64;

/// Who may change the manifests and tags of a repository: any number of writers at once, or one delete.
///
/// Guards go along with the disk work, so that a caller who leaves does not end the protection.
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
    /// Taken to read by writers, and to write by deletes.
    pub(super) fn of(&self, repository: &RepositoryDir) -> Arc<RwLock<()>> {
        // The index is below the number of stripes: there always is one.
        self.changes.get(stripe(repository, STRIPES)).cloned().unwrap_or_default()
    }

    /// Whose turn it is to wait on the blocking pool for the other lock. Were it many at once, no thread of the pool
    /// would be left for those that they wait for.
    pub(super) async fn turn(&self, repository: &RepositoryDir) -> OwnedMutexGuard<()> {
        let deletes = self.deletes.get(stripe(repository, STRIPES)).cloned();
        deletes.unwrap_or_default().lock_owned().await
    }
}

/// Which of `stripes` a repository belongs to.
pub(super) fn stripe(repository: &RepositoryDir, stripes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    repository.hash(&mut hasher);
    usize::try_from(hasher.finish() % stripes as u64).unwrap_or_default()
}

impl Shared {
    /// Makes `link` say `digest`.
    pub(super) fn write_link(&self, link: &Path, digest: &Digest, durability: Durability) -> io::Result<()> {
        if read_link(link)?.is_some_and(|linked| linked == *digest) {
            return publish::confirm(link, durability);
        }
        publish::write_file(&self.layout.unpublished(), link, digest.as_str().as_bytes(), durability)
    }

    /// The bytes of `digest`, where `link` says that its repository has it.
    pub(super) fn open_linked(&self, link: &Path, digest: &Digest) -> io::Result<(File, u64)> {
        require_link(link, digest)?;
        let file = File::open(self.layout.blob(digest))?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// Makes bytes that are kept already as young as if they had been written now, because somebody relies on them
    /// from now on: garbage collection spares what is young. And as durable.
    pub(super) fn renew(&self, digest: &Digest, durability: Durability) -> io::Result<()> {
        let blob = self.layout.blob(digest);
        let file = File::open(&blob)?;
        // A file of another owner (Docker's registry ran as another user) stays as old as it is.
        let _ = file.set_modified(SystemTime::now());
        publish::confirm(&blob, durability)
    }
}

/// What `link` says; `None` where it is absent or damaged.
pub(super) fn read_link(link: &Path) -> io::Result<Option<Digest>> {
    match fs::read_to_string(link) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => absent_is(None, error),
    }
}

/// `NotFound` unless `link` says `digest`.
pub(super) fn require_link(link: &Path, digest: &Digest) -> io::Result<()> {
    match read_link(link)? {
        Some(linked) if linked == *digest => Ok(()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}
