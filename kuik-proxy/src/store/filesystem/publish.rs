//! Atomic publishing: temporary file, fsync, rename, and for what is acknowledged fsync of the directory.
//!
//! Invariant: under its final name a blob is always whole. A crash at any instant leaves the old file or the new
//! one, and at worst a temporary file, which the next start removes.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// What has to survive a crash of the machine. (A crash of the process loses nothing that was published.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Everything, from the moment that publishing returns.
    Acknowledged,
    /// What is there has to be right, but may be missing: it can be fetched again. Each fsync makes whoever uses
    /// the directory wait for the file system's journal, and pulls that come in a row are just that.
    Refetchable,
}

/// Whether anybody finds out where a file's bytes were lost in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Nobody does: it is served as it is.
    Trusted,
    /// Whoever reads it sees: a manifest is hashed, an empty link is no link.
    CheckedWhenRead,
}

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

    /// Gives the file its final name, in place of what had that name before.
    pub(super) fn publish(
        mut self,
        target: &Path,
        content: Content,
        durability: Durability,
    ) -> io::Result<()> {
        let acknowledged = durability == Durability::Acknowledged;
        if acknowledged || content == Content::Trusted {
            self.file.sync_all()?;
        }
        let parent = parent_of(target)?;
        create_dir(parent, durability)?;
        fs::rename(&self.path, target)?;
        self.published = true;
        if acknowledged { sync_dir(parent) } else { Ok(()) }
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

/// Publishes a small file, of a kind that is checked when it is read.
pub(super) fn write_file(
    unpublished_dir: &Path,
    target: &Path,
    content: &[u8],
    durability: Durability,
) -> io::Result<()> {
    let file = Unpublished::create(unpublished_dir)?;
    (&file.file).write_all(content)?;
    file.publish(target, Content::CheckedWhenRead, durability)
}

/// Creates a directory and those above it.
pub(super) fn create_dir(dir: &Path, durability: Durability) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = parent_of(dir)?;
    create_dir(parent, durability)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) if durability == Durability::Acknowledged => sync_dir(parent),
        Ok(()) => Ok(()),
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

        for durability in [Durability::Acknowledged, Durability::Refetchable] {
            write_file(dir.path(), &target, b"old", durability).unwrap();
            write_file(dir.path(), &target, b"new", durability).unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"new");
        }
    }
}
