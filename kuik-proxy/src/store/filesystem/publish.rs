//! Atomic, durable publishing: temporary file, fsync, rename, fsync of the directory.
//!
//! Invariant: under its final name a file is always whole. A crash at any instant leaves the old file or the new
//! one, and at worst a temporary file, which the next start removes.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A file without its final name. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Unpublished {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Unpublished {
    /// A new empty file in `dir`, which other files there do not disturb.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { path, file, published: false })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Makes the file durable and gives it its final name, in place of what had that name before.
    pub(super) fn publish(mut self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        let parent = parent_of(target)?;
        create_dir_durably(parent)?;
        fs::rename(&self.path, target)?;
        self.published = true;
        sync_dir(parent)
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        if !self.published {
            // Where this fails, the next start removes the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Publishes a small file of the given content.
pub(super) fn write_file(unpublished_dir: &Path, target: &Path, content: &[u8]) -> io::Result<()> {
    let file = Unpublished::create(unpublished_dir)?;
    (&file.file).write_all(content)?;
    file.publish(target)
}

/// Creates a directory and those above it, so that they survive a crash.
pub(super) fn create_dir_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = parent_of(dir)?;
    create_dir_durably(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(parent),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn parent_of(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no parent directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b/data");

        let abandoned = Unpublished::create(dir.path()).unwrap();
        abandoned.file().write_all(b"half").unwrap();
        drop(abandoned);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "an abandoned file is gone");

        write_file(dir.path(), &target, b"old").unwrap();
        write_file(dir.path(), &target, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }
}
