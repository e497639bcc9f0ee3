//! Maintenance of a store while a process serves: opens its directory, and runs the background tasks.

use std::{path::Path, sync::Arc};

use kuik_proxy::{
    pull_through::PullThrough,
    stack::{Storage, StoreMaintenance},
    store::FilesystemStore,
};

use crate::cli_error::CliError;

/// Opens the store in a directory.
///
/// # Errors
/// Fails if the directory is in use, or cannot be written to.
pub fn open_directory(dir: &Path) -> Result<Storage, CliError> {
    let store = FilesystemStore::open(dir).map_err(CliError::new)?;
    // Writes of cached content need no fsync, since it can be fetched again; pushed content is synced.
    let fetched = Arc::new(store.as_cache());
    Ok(Storage { fetched, pushed: Arc::new(store), redirects: false, announcements: None })
}

/// The tasks of a [`StoreMaintenance`], which are aborted on drop.
#[derive(Debug)]
pub struct MaintenanceTasks(Vec<tokio::task::JoinHandle<()>>);

impl MaintenanceTasks {
    /// Starts the tasks. `cache` is the cache in front of the store, if there is one.
    #[must_use]
    pub fn spawn(maintenance: &StoreMaintenance, cache: Option<&PullThrough>) -> Self {
        Self(maintenance.tasks(cache.cloned()).into_iter().map(tokio::spawn).collect())
    }
}

impl Drop for MaintenanceTasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
