//! A small disk: a tmpfs of a few megabytes, unmounted when it is dropped.

use std::{path::Path, process::Command};

use kuik_testkit::real::run;
use tempfile::TempDir;

/// A mounted tmpfs.
#[derive(Debug)]
pub(crate) struct Tmpfs {
    folder: TempDir,
}

impl Tmpfs {
    /// Mounts one of so many mebibytes.
    pub(crate) async fn mount(mebibytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let target = folder.path().as_os_str();
        let arguments =
            ["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), size.as_ref(), "tmpfs".as_ref(), target];
        let mounted = run("mount", "mount", arguments).await;
        assert!(
            mounted.is_ok(),
            "a tmpfs cannot be mounted: run this test as root ({})",
            mounted.unwrap_err()
        );
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that a failing test leaves behind for a moment is not to keep the mount.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}
