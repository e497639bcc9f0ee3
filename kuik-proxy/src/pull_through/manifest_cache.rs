//! In-memory manifest cache of recently requested manifests: a hit costs no system call.
//!
//! Invariant: at most [`BUDGET_BYTES`] of manifests are cached. Evicted entries are read from the store again.

use kuik_core::{
    content::{Digest, Manifest, SourceErrorKind, TagOrDigest},
    reference::RepositoryName,
};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Total size limit of cached manifests, in bytes.
const BUDGET_BYTES: usize = 4 << 20;

/// A larger manifest is not cached, so that it does not displace all others: it is read from the store, and its tag
/// checked, each time.
const LARGEST_BYTES: usize = 1 << 20;

/// Cost of an entry in addition to the manifest's bytes: names, digests, the table.
const OVERHEAD_BYTES: usize = 512;

/// A manifest as it was last seen under a name.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub manifest: Manifest,
    /// When the store or upstream must be checked again; `None` is never.
    pub check_at: Option<Instant>,
    pub storage: StorageState,
    /// Why the last revalidation failed, if it did.
    pub stale: Option<SourceErrorKind>,
}

/// Whether the store has the cached manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StorageState {
    /// The store had it. If it is missing now, it was deleted there.
    Stored,
    /// It is being written to the store.
    Pending,
    /// Writing it to the store failed.
    Failed,
}

/// Manifests by the name they were requested under.
#[derive(Debug)]
pub(super) struct ManifestCache(Mutex<Entries>);

#[derive(Debug)]
struct Entries {
    cache: LruCache<(RepositoryName, TagOrDigest), Remembered>,
    bytes: usize,
}

impl ManifestCache {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Entries { cache: LruCache::unbounded(), bytes: 0 }))
    }

    pub(super) fn get(&self, key: &(RepositoryName, TagOrDigest)) -> Option<Remembered> {
        self.0.lock().cache.get(key).cloned()
    }

    pub(super) fn put(&self, key: (RepositoryName, TagOrDigest), mut remembered: Remembered) {
        let cost = cost_of(&remembered);
        let mut entries = self.0.lock();
        let replaced = entries.cache.pop(&key);
        entries.bytes -= replaced.as_ref().map_or(0, cost_of);
        if let Some(replaced) = replaced
            && replaced.manifest.digest() == remembered.manifest.digest()
        {
            remembered.storage = remembered.storage.max(replaced.storage);
        }
        if cost > LARGEST_BYTES {
            return;
        }
        entries.cache.put(key, remembered);
        entries.bytes += cost;
        while entries.bytes > BUDGET_BYTES {
            let Some((_, oldest)) = entries.cache.pop_lru() else { break };
            entries.bytes -= cost_of(&oldest);
        }
    }

    /// Records the result of storing `digest`, if that is the manifest cached under `key`.
    pub(super) fn settle(&self, key: &(RepositoryName, TagOrDigest), digest: &Digest, storage: StorageState) {
        let mut entries = self.0.lock();
        if let Some(remembered) = entries.cache.peek_mut(key)
            && remembered.manifest.digest() == digest
        {
            remembered.storage = storage;
        }
    }

    /// Whether storing the manifest cached under `key` failed: the one caller that gets `true` stores it again.
    pub(super) fn take_failed(&self, key: &(RepositoryName, TagOrDigest)) -> bool {
        let mut entries = self.0.lock();
        let failed = entries.cache.peek_mut(key).filter(|it| it.storage == StorageState::Failed);
        failed.map(|remembered| remembered.storage = StorageState::Pending).is_some()
    }

    /// Drops all entries of a repository.
    pub(super) fn forget(&self, repository: &RepositoryName) {
        let mut entries = self.0.lock();
        // One repository may have two names: that of its registry, and its encoded path in the store.
        let path = repository.encoded().ok();
        let is_same =
            |name: &RepositoryName| name == repository || (path.is_some() && name.encoded().ok() == path);
        let keys: Vec<_> =
            entries.cache.iter().map(|(key, _)| key).filter(|key| is_same(&key.0)).cloned().collect();
        for key in keys {
            let forgotten = entries.cache.pop(&key);
            entries.bytes -= forgotten.as_ref().map_or(0, cost_of);
        }
    }
}

fn cost_of(remembered: &Remembered) -> usize {
    remembered.manifest.bytes().len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn manifest(padding: usize) -> Remembered {
        let body = format!(
            r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"p":"{}"}}}}"#,
            "x".repeat(padding)
        );
        Remembered {
            manifest: Manifest::new(None, Bytes::from(body)).unwrap(),
            check_at: None,
            storage: StorageState::Stored,
            stale: None,
        }
    }

    fn key(tag: usize) -> (RepositoryName, TagOrDigest) {
        let repository = RepositoryName::new("docker.io", "library/nginx").unwrap();
        (repository, TagOrDigest::Tag(format!("v{tag}").parse().unwrap()))
    }

    #[test]
    fn least_recently_used_manifests_are_evicted() {
        let memory = ManifestCache::new();
        let each = 100 << 10;
        for tag in 0..60 {
            memory.put(key(tag), manifest(each));
            assert!(memory.get(&key(0)).is_some(), "requested all the time");
        }
        assert!(memory.get(&key(1)).is_none());
        assert!(memory.get(&key(59)).is_some());
        assert!(memory.0.lock().bytes <= BUDGET_BYTES);
    }

    #[test]
    fn failed_write_is_remembered_until_the_manifest_changes() {
        let memory = ManifestCache::new();
        let settle =
            |tag, padding, storage| memory.settle(&key(tag), manifest(padding).manifest.digest(), storage);
        memory.put(key(0), manifest(1));
        settle(0, 1, StorageState::Failed);
        memory.put(key(0), manifest(1));
        assert_eq!(memory.get(&key(0)).unwrap().storage, StorageState::Failed, "a tag check stores nothing");
        assert!(memory.take_failed(&key(0)));
        assert!(!memory.take_failed(&key(0)), "only one caller retries");
        settle(0, 2, StorageState::Failed);
        assert!(!memory.take_failed(&key(0)), "the result was for another manifest");
        settle(0, 1, StorageState::Failed);
        memory.put(key(0), manifest(2));
        assert_eq!(memory.get(&key(0)).unwrap().storage, StorageState::Stored);
        settle(1, 1, StorageState::Failed);
        assert!(!memory.take_failed(&key(1)), "an unknown key is not retried");
    }

    #[test]
    fn replaced_manifest_is_not_counted_twice() {
        let memory = ManifestCache::new();
        for padding in [100, 1000, LARGEST_BYTES, 10] {
            memory.put(key(0), manifest(padding));
        }
        let kept = memory.get(&key(0)).unwrap();
        assert_eq!(memory.0.lock().bytes, cost_of(&kept));
    }
}
