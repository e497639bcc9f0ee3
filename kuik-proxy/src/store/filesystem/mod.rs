//! File system store: content in a directory.
//!
//! Reads check the repository's link before the bytes, as Docker's registry does: a blob of one repository is not
//! readable through another. A link that is empty or damaged (by a crash of the machine) counts as absent.
//!
//! One module for each kind of operation: `reads`, `tags`, `writes` and `writer`, `uploads`, `deletes`, `referrers`,
//! `metadata`, `walk`; `mappings` maps files for reads. All paths come from `layout`, and all changes go through
//! `publish`.

mod deletes;
mod layout;
mod links;
mod lock;
mod mappings;
mod metadata;
mod publish;
mod reads;
mod referrers;
mod registry_store;
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

/// A [`RegistryStore`](kuik_core::content::RegistryStore) in a directory, in the layout of Docker's registry. Cheap to
/// clone.
///
/// Acknowledged writes survive a crash of the machine; see [`FilesystemStore::as_cache`] for the exception. Disk work
/// runs on tokio's blocking pool.
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
    /// Opens `data_dir`, creating it if it is missing, and removes unfinished files of an earlier process. Uploads
    /// that clients can resume are kept.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// Fails if another process has the directory open, or it cannot be written.
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

    /// Returns the store for content that can be fetched again: a crash of the machine may lose the latest writes,
    /// and pulls do not wait for each other's disk writes. Torn content is never visible either way.
    #[must_use]
    pub fn as_cache(&self) -> Self {
        Self { shared: self.shared.clone(), durability: Durability::Refetchable }
    }

    /// Runs `work` on the blocking pool; `attempted` describes it in errors.
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
