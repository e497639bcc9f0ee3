//! Content in a directory.
//!
//! Reads check the repository's link before the bytes, as Docker's registry does: a blob that one repository has
//! is not readable through another. A link that is empty or damaged (a crash of the machine) counts as absent.
//!
//! One room for each thing that is done to the directory: `reads`, `tags`, `writes` and `writer`, `uploads`,
//! `deletes`, `referrers`, `notes`, `walk`; what is read is mapped by `mappings`. All of them find their way by `layout`, and change it by `publish` alone.

mod deletes;
mod layout;
mod links;
mod lock;
mod managed;
mod mappings;
mod notes;
mod publish;
mod reads;
mod referrers;
mod tags;
mod uploads;
mod walk;
mod writer;
mod writes;

use std::{fs, io, path::Path, sync::Arc};

use kuik_core::content::SourceError;

use self::{
    layout::Layout, links::RepositoryLocks, lock::DirLock, mappings::Mappings, publish::Durability,
    referrers::Indexed, uploads::Uploads,
};
pub use lock::OpenError;
pub(super) use publish::is_absent;

use super::blocking;

/// A [`ManagedStore`](kuik_core::content::ManagedStore) in a directory, in the layout of Docker's registry. Cheap to
/// clone.
///
/// What it has acknowledged survives a crash of the machine; see [`FilesystemStore::as_cache`] for what need not.
/// Disk work runs on tokio's blocking pool.
#[derive(Debug, Clone)]
pub struct FilesystemStore {
    shared: Arc<Shared>,
    durability: Durability,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    locks: RepositoryLocks,
    uploads: Uploads,
    indexed: Indexed,
    mappings: Mappings,
    _lock: DirLock,
}

impl FilesystemStore {
    /// Opens `data_dir`, creates it where it is missing, and removes what an earlier process left unfinished. Uploads
    /// that clients can go on with stay.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// Where another process has the directory open, or it cannot be written.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let layout = Layout::new(data_dir);
        let failed = |attempted| move |source| OpenError::Io { path: data_dir.to_owned(), attempted, source };
        let unpublished = layout.unpublished();
        publish::create_dir(&unpublished, Durability::Acknowledged).map_err(failed("create it"))?;
        let lock = DirLock::acquire(data_dir, &layout.lock())?;
        remove_entries(&unpublished).map_err(failed("remove the unfinished files of an earlier run"))?;
        let shared = Shared {
            layout,
            locks: RepositoryLocks::default(),
            uploads: Uploads::default(),
            indexed: Indexed::default(),
            mappings: Mappings::default(),
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared), durability: Durability::Acknowledged })
    }

    /// The same store for content that can be fetched again: a crash of the machine may lose what was kept last,
    /// and pulls do not wait for one another's disk writes. Nothing torn is visible either way.
    #[must_use]
    pub fn as_cache(&self) -> Self {
        Self { shared: self.shared.clone(), durability: Durability::Refetchable }
    }

    /// Runs `work` on the blocking pool; `attempted` says what it is for.
    async fn disk<T: Send + 'static>(
        &self,
        attempted: impl Into<String>,
        work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Result<T, SourceError> {
        let shared = self.shared.clone();
        blocking(attempted, move || work(&shared)).await
    }
}

fn remove_entries(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let remove = if entry.file_type()?.is_dir() { fs::remove_dir_all } else { fs::remove_file };
        remove(entry.path())?;
    }
    Ok(())
}
