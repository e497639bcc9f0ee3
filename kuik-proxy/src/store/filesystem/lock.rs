//! Lock of a data directory: one process each, because two would remove each other's unfinished files.

use std::{
    fs::{File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Time a lock may outlive its holder: a process that is just ending, or a forked child before its exec, still holds
/// it.
const PATIENCE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(20);

/// Failure to open a data directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("the data directory {} is in use by another process{holder}: stop that one, or give this one a directory of its own", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// ` (pid N)`, if the other process recorded it.
        holder: String,
    },
    /// It cannot be created, read or written.
    #[error("cannot open the data directory {}: {attempted}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The attempted operation.
        attempted: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
}

/// The lock, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(super) fn acquire(data_dir: &Path, lock: &Path) -> Result<Self, OpenError> {
        let failed = |attempted| move |source| OpenError::Io { path: data_dir.to_owned(), attempted, source };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(lock)
            .map_err(failed("create its lock file"))?;
        let patience = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < patience => thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::InUse { path: data_dir.to_owned(), holder: holder(file) });
                }
                Err(TryLockError::Error(source)) => return Err(failed("lock it")(source)),
            }
        }
        // The pid is for the error message of another process; the lock does not depend on it.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn holder(file: File) -> String {
    let mut pid = String::new();
    match file.take(20).read_to_string(&mut pid) {
        Ok(_) if pid.trim().parse::<u32>().is_ok() => format!(" (pid {})", pid.trim()),
        _ => String::new(),
    }
}
