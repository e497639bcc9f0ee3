//! Shared memory mappings of blobs for concurrent readers.
//!
//! Mapping and unmapping a file costs about as much as sending it, and a blob that many nodes pull is sent many times
//! at once. So a mapping lives for as long as it has readers, and new readers share it. Files are identified by
//! device and inode, and a mapping keeps its file: a reader that opens the path after its bytes were replaced gets
//! the new ones, and the disk space of a deleted blob is freed when its readers are done.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::store::map::{self, Whole};

/// Identity of a file: device, inode and size.
type Key = (u64, u64, u64);

#[derive(Debug, Default)]
struct Table(RwLock<HashMap<Key, Weak<Shared>>>);

/// Mappings in use. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Mappings(Arc<Table>);

/// An open file, mapped if that is worth it.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    file: Arc<File>,
    shared: Option<Arc<Shared>>,
}

/// A mapping with its key.
#[derive(Debug)]
struct Shared {
    whole: Arc<Whole>,
    key: Key,
    table: Weak<Table>,
}

impl Mappings {
    /// Opens a file for reading. Blocks on the disk.
    ///
    /// # Errors
    /// Fails if it cannot be mapped.
    pub(super) fn read(&self, file: File) -> io::Result<Reading> {
        let found = file.metadata()?;
        let key = (found.dev(), found.ino(), found.len());
        let shared = match self.0.find(&key) {
            Some(shared) => Some(shared),
            None => Whole::of(&file, found.len())?.map(|whole| self.keep(key, whole)),
        };
        Ok(Reading { file: Arc::new(file), shared })
    }

    /// Shares a mapping, unless another reader has done so meanwhile.
    fn keep(&self, key: Key, whole: Whole) -> Arc<Shared> {
        let mut table = self.0.0.write();
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
        self.0.read().get(key)?.upgrade()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else { return };
        let mut table = table.0.write();
        // Another one may have replaced it since its last reader was dropped.
        if table.get(&self.key).is_some_and(|there| there.strong_count() == 0) {
            table.remove(&self.key);
        }
    }
}

impl Reading {
    /// Returns the bytes `start..end`, at most [`map::WINDOW`] of them. Blocks on the disk.
    ///
    /// # Errors
    /// Fails if the disk fails or the file does not have them.
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
    fn concurrent_readers_share_a_mapping_until_the_last_one_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        fs::write(&path, vec![1; 200_000]).unwrap();
        let mappings = Mappings::default();
        let open = || mappings.read(File::open(&path).unwrap()).unwrap();
        let (one, other) = (open(), open());
        let shared = |reading: &Reading| reading.shared.clone().unwrap();
        assert!(Arc::ptr_eq(&shared(&one), &shared(&other)));
        assert_eq!(mappings.0.0.read().len(), 1);

        // A replacement is another file.
        fs::write(folder.path().join("new"), vec![2; 200_000]).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        let replaced = open();
        assert_eq!(replaced.window(0, 3).unwrap().as_ref(), [2; 3]);
        assert_eq!(one.window(0, 3).unwrap().as_ref(), [1; 3]);

        let window = other.window(0, 200_000).unwrap();
        drop((one, other, replaced));
        assert!(mappings.0.0.read().is_empty());
        assert_eq!(window.as_ref(), [1; 200_000]);
    }

    #[test]
    fn small_file_is_read_without_a_mapping() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        fs::write(&path, b"hello").unwrap();
        let mappings = Mappings::default();
        let reading = mappings.read(File::open(&path).unwrap()).unwrap();
        assert_eq!(reading.window(1, 5).unwrap().as_ref(), b"ello");
        assert!(mappings.0.0.read().is_empty());
    }
}
