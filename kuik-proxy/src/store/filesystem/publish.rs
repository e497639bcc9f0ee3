//! Atomic publishing: temporary file, fsync, rename, and for what is acknowledged fsync of the directory.
//!
//! Invariant: under its final name a blob is always whole. A crash at any instant leaves the old file or the new
//! one, and at worst a temporary file, which the next start removes. Removing is the same backwards: a name goes at
//! once, and for what is acknowledged the directory that it stood in is synced.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// How often a directory may be taken away between its creation and its use.
const MAX_ATTEMPTS: usize = 16;

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
        let path = unused_name(dir);
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
        rename(&self.path, target, durability)?;
        self.published = true;
        Ok(())
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

/// A path in `dir` that nothing of this process has had yet.
pub(super) fn unused_name(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Gives `from` the name `target`, in place of what had that name before, and creates the directories above it.
pub(super) fn rename(from: &Path, target: &Path, durability: Durability) -> io::Result<()> {
    let parent = parent_of(target)?;
    let mut attempts = 0;
    while let Err(error) = create_dir(parent, durability).and_then(|()| fs::rename(from, target)) {
        attempts += 1;
        // Deletes take directories away that they have emptied: then they are created again.
        if error.kind() != io::ErrorKind::NotFound || attempts == MAX_ATTEMPTS {
            return Err(error);
        }
    }
    if durability == Durability::Acknowledged { sync_dir(parent) } else { Ok(()) }
}

/// Removes a file, and the directories above it that this leaves empty, up to `keep`, which stays. Whether there was
/// such a file.
pub(super) fn remove_file(path: &Path, keep: &Path, durability: Durability) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if is_absent(&error) => Ok(false),
        removed => removed.and_then(|()| has_gone(path, keep, durability)).map(|()| true),
    }
}

/// Moves a file, and removes the directories above its old place that this leaves empty, up to `keep`, which stays.
pub(super) fn move_file(path: &Path, target: &Path, keep: &Path, durability: Durability) -> io::Result<()> {
    rename(path, target, durability)?;
    has_gone(path, keep, durability)
}

/// What is to be done when a file has left its place.
fn has_gone(path: &Path, keep: &Path, durability: Durability) -> io::Result<()> {
    let mut emptied = parent_of(path)?;
    while emptied != keep && emptied.starts_with(keep) && fs::remove_dir(emptied).is_ok() {
        emptied = parent_of(emptied)?;
    }
    // Where somebody else took that directory away, it was empty: the file is gone from it for good.
    match durability {
        Durability::Acknowledged => sync_dir(emptied).or_else(|error| absent_is((), error)),
        Durability::Refetchable => Ok(()),
    }
}

/// Whether an error means that there is nothing under a path.
pub(in crate::store) fn is_absent(error: &io::Error) -> bool {
    // A digest of an algorithm that we do not know may be too long for a file's name.
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::InvalidFilename];
    absent.contains(&error.kind())
}

/// `value` in place of an error that says that there is nothing under a path.
pub(super) fn absent_is<T>(value: T, error: io::Error) -> io::Result<T> {
    if is_absent(&error) { Ok(value) } else { Err(error) }
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

/// Makes a file that is there already as durable as if it had been published now: who did it may have had less to promise.
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

    #[test]
    fn directories_that_a_delete_takes_away_are_created_again() {
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
