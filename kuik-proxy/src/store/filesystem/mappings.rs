//! Blobs that are mapped for all who read them at the same time.
//!
//! To map a file and to unmap it again costs about as much as to send it, and a blob that many nodes pull is sent many
//! times at once. So a mapping lives for as long as somebody reads it, and is shared by those who come meanwhile. Files
//! are told apart as the kernel does, and a mapping keeps its file: whoever opens the path after bytes were replaced
//! there gets the new ones, and nothing holds the disk space of a blob that was deleted, once its readers are done.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, PoisonError, RwLock, Weak},
};

use bytes::Bytes;

use crate::store::map::{self, Whole};

/// Which file, and how large it is: device, number and size.
type Key = (u64, u64, u64);

#[derive(Debug, Default)]
struct Table(RwLock<HashMap<Key, Weak<Shared>>>);

/// The mappings that somebody uses. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Mappings(Arc<Table>);

/// A file that is read, mapped where that is worth it.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    file: Arc<File>,
    shared: Option<Arc<Shared>>,
}

/// A mapping, and where it is found.
#[derive(Debug)]
struct Shared {
    whole: Arc<Whole>,
    key: Key,
    table: Weak<Table>,
}

impl Mappings {
    /// Begins to read a file. Blocks on the disk.
    ///
    /// # Errors
    /// Where it cannot be mapped.
    pub(super) fn read(&self, file: File) -> io::Result<Reading> {
        let found = file.metadata()?;
        let key = (found.dev(), found.ino(), found.len());
        let shared = match self.0.find(&key) {
            Some(shared) => Some(shared),
            None => Whole::of(&file, found.len())?.map(|whole| self.keep(key, whole)),
        };
        Ok(Reading { file: Arc::new(file), shared })
    }

    /// Shares a mapping, unless somebody else has done so meanwhile.
    fn keep(&self, key: Key, whole: Whole) -> Arc<Shared> {
        let mut table = self.0.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = table.get(&key).and_then(Weak::upgrade) {
            return shared;
        }
        let shared = Arc::new(Shared { whole: Arc::new(whole), key, table: Arc::downgrade(&self.0) });
        table.insert(key, Arc::downgrade(&shared));
        shared
    }
}

impl Table {
    fn find(&self, key: &Key) -> Option<Arc<Shared>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key)?.upgrade()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else { return };
        let mut table = table.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another one may have taken its place since its last reader left.
        if table.get(&self.key).is_some_and(|there| there.strong_count() == 0) {
            table.remove(&self.key);
        }
    }
}

impl Reading {
    /// The bytes `start..end`, at most [`map::WINDOW`] of them. Blocks on the disk.
    ///
    /// # Errors
    /// Where the disk fails, or the file does not have them.
    pub(super) fn window(&self, start: u64, end: u64) -> io::Result<Bytes> {
        match &self.shared {
            Some(shared) => shared.whole.window(&self.file, start, end),
            None => map::window(&self.file, start, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn who_reads_at_the_same_time_shares_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        fs::write(&path, vec![1; 200_000]).unwrap();
        let mappings = Mappings::default();
        let open = || mappings.read(File::open(&path).unwrap()).unwrap();
        let (one, other) = (open(), open());
        let shared = |reading: &Reading| reading.shared.clone().unwrap();
        assert!(Arc::ptr_eq(&shared(&one), &shared(&other)));
        assert_eq!(mappings.0.0.read().unwrap().len(), 1);

        // Bytes in its place are another file.
        fs::write(folder.path().join("new"), vec![2; 200_000]).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        let replaced = open();
        assert_eq!(replaced.window(0, 3).unwrap().as_ref(), [2; 3]);
        assert_eq!(one.window(0, 3).unwrap().as_ref(), [1; 3]);

        let window = other.window(0, 200_000).unwrap();
        drop((one, other, replaced));
        assert!(mappings.0.0.read().unwrap().is_empty());
        assert_eq!(window.as_ref(), [1; 200_000]);
    }

    #[test]
    fn a_small_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        fs::write(&path, b"hello").unwrap();
        let mappings = Mappings::default();
        let reading = mappings.read(File::open(&path).unwrap()).unwrap();
        assert_eq!(reading.window(1, 5).unwrap().as_ref(), b"ello");
        assert!(mappings.0.0.read().unwrap().is_empty());
    }
}
