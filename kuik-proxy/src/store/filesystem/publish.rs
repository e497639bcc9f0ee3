//! Atomic publishing: temporary file, fsync, rename, and fsync of the directory for acknowledged content.
//!
//! Invariant: under its final name a blob is always complete. A crash at any instant leaves the old file or the new
//! one, and at worst a temporary file, which the next start removes. Removal is the reverse: a name is removed
//! atomically, and for acknowledged content its directory is synced.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Number of times a directory may be removed between its creation and its use.
const MAX_ATTEMPTS: usize = 16;

/// Durability after a crash of the machine. (A crash of the process loses nothing published.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Everything is durable when publishing returns.
    Acknowledged,
    /// Stored content is correct, but may be missing: it can be fetched again. Each fsync makes all users of the
    /// directory wait for the file system's journal, and a series of pulls would do just that.
    Refetchable,
}

/// Whether readers detect bytes lost in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Not detected: the file is served unchecked.
    Trusted,
    /// Detected by readers: a manifest is hashed, an empty link counts as absent.
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
    /// Creates an empty file in `dir`, with a unique name.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let path = unused_name(dir);
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { path, file, published: false })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its final name, replacing any file of that name.
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
        rename(&self.path, target, durability)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        if !self.published {
            // If this fails, the next start removes the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns a path in `dir` that this process has not used yet.
pub(super) fn unused_name(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Renames `from` to `target`, replacing any file of that name, and creates its parent directories.
pub(super) fn rename(from: &Path, target: &Path, durability: Durability) -> io::Result<()> {
    let parent = parent_of(target)?;
    let mut attempts = 0;
    while let Err(error) = create_dir(parent, durability).and_then(|()| fs::rename(from, target)) {
        attempts += 1;
        // Deletes remove empty directories: then they are created again.
        if error.kind() != io::ErrorKind::NotFound || attempts == MAX_ATTEMPTS {
            return Err(error);
        }
    }
    if durability == Durability::Acknowledged { sync_dir(parent) } else { Ok(()) }
}

/// Removes a file, and then its empty parent directories, up to but not including `keep`. Returns whether the file
/// existed.
pub(super) fn remove_file(path: &Path, keep: &Path, durability: Durability) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if is_absent(&error) => Ok(false),
        removed => removed.and_then(|()| has_gone(path, keep, durability)).map(|()| true),
    }
}

/// Moves a file, and then removes its empty parent directories, up to but not including `keep`.
pub(super) fn move_file(path: &Path, target: &Path, keep: &Path, durability: Durability) -> io::Result<()> {
    rename(path, target, durability)?;
    has_gone(path, keep, durability)
}

/// Cleans up after a file was removed from its directory.
fn has_gone(path: &Path, keep: &Path, durability: Durability) -> io::Result<()> {
    let mut emptied = parent_of(path)?;
    while emptied != keep && emptied.starts_with(keep) && fs::remove_dir(emptied).is_ok() {
        emptied = parent_of(emptied)?;
    }
    // If another task removed that directory, it was empty: the file is gone from it for good.
    match durability {
        Durability::Acknowledged => sync_dir(emptied).or_else(|error| absent_is((), error)),
        Durability::Refetchable => Ok(()),
    }
}

/// Returns whether an error means that nothing exists at a path.
pub(in crate::store) fn is_absent(error: &io::Error) -> bool {
    // A digest of an unknown algorithm may be too long for a file name.
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::InvalidFilename];
    absent.contains(&error.kind())
}

/// Replaces an error that means that nothing exists at a path by `value`.
pub(super) fn absent_is<T>(value: T, error: io::Error) -> io::Result<T> {
    if is_absent(&error) { Ok(value) } else { Err(error) }
}

/// Publishes a small file, of a kind that readers verify.
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

/// Makes an existing file as durable as a newly published one: it may have been published with less durability.
pub(super) fn confirm(path: &Path, durability: Durability) -> io::Result<()> {
    if durability == Durability::Acknowledged {
        File::open(path)?.sync_all()?;
        sync_dir(parent_of(path)?)?;
    }
    Ok(())
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

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
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
    fn publish_is_atomic() {
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

    #[test]
    fn publish_recreates_directories_removed_by_a_delete() {
        let dir = tempfile::tempdir().unwrap();
        let (unpublished, kept) = (dir.path().join("unpublished"), dir.path().join("kept"));
        fs::create_dir(&unpublished).unwrap();
        fs::create_dir(&kept).unwrap();
        let durability = Durability::Refetchable;
        std::thread::scope(|threads| {
            for name in ["one", "other"] {
                let target = kept.join("a/b").join(name);
                let (unpublished, kept) = (&unpublished, &kept);
                threads.spawn(move || {
                    for _ in 0..500 {
                        write_file(unpublished, &target, b"link", durability).unwrap();
                        assert!(remove_file(&target, kept, durability).unwrap());
                        assert!(!remove_file(&target, kept, durability).unwrap());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 0, "emptied directories are gone");
    }
}
