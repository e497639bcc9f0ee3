//! The manifests that were asked for lately, in memory: a hit costs no system call.
//!
//! Invariant: at most [`BUDGET_BYTES`] of manifests are kept. What is forgotten is read from the store again.

use std::sync::{Mutex, PoisonError};

use kuik_core::{
    content::{Digest, Manifest, TagOrDigest},
    reference::RepositoryName,
};
use lru::LruCache;
use tokio::time::Instant;

/// How many bytes of manifests are kept.
const BUDGET_BYTES: usize = 4 << 20;

/// A manifest beyond this is read from the store, and its tag checked, each time, rather than displace all others.
const LARGEST_BYTES: usize = 1 << 20;

/// What an entry costs beside the manifest's bytes: names, digests, the table.
const OVERHEAD_BYTES: usize = 512;

/// A manifest as it was last seen under a name.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub manifest: Manifest,
    /// When others are to be asked whether this is still so; `None` is never.
    pub check_at: Option<Instant>,
    pub keeping: Keeping,
}

/// Whether the store has what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keeping {
    /// It had it. Where it has not any more, somebody deleted it there.
    Kept,
    /// It is being given it.
    Pending,
    /// It was given it and could not keep it.
    Failed,
}

/// Manifests by the name that they were asked for by.
#[derive(Debug)]
pub(super) struct ManifestMemory(Mutex<Entries>);

#[derive(Debug)]
struct Entries {
    cache: LruCache<(RepositoryName, TagOrDigest), Remembered>,
    bytes: usize,
}

impl ManifestMemory {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Entries { cache: LruCache::unbounded(), bytes: 0 }))
    }

    pub(super) fn get(&self, key: &(RepositoryName, TagOrDigest)) -> Option<Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cache.get(key).cloned()
    }

    pub(super) fn put(&self, key: (RepositoryName, TagOrDigest), mut remembered: Remembered) {
        let cost = cost_of(&remembered);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = entries.cache.pop(&key);
        entries.bytes -= replaced.as_ref().map_or(0, cost_of);
        if let Some(replaced) = replaced
            && replaced.manifest.digest() == remembered.manifest.digest()
        {
            remembered.keeping = remembered.keeping.max(replaced.keeping);
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

    /// Says how the store has done with `digest`, where that is what is remembered under `key`.
    pub(super) fn settle(&self, key: &(RepositoryName, TagOrDigest), digest: &Digest, keeping: Keeping) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remembered) = entries.cache.peek_mut(key)
            && remembered.manifest.digest() == digest
        {
            remembered.keeping = keeping;
        }
    }

    /// Whether the store failed to keep what is remembered under `key`: who is told so gives it to the store again,
    /// and nobody else is.
    pub(super) fn take_failed(&self, key: &(RepositoryName, TagOrDigest)) -> bool {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = entries.cache.peek_mut(key).filter(|it| it.keeping == Keeping::Failed);
        failed.map(|remembered| remembered.keeping = Keeping::Pending).is_some()
    }

    /// Forgets all that is remembered of a repository.
    pub(super) fn forget(&self, repository: &RepositoryName) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One repository may have two names: that of its registry, and the path that it is kept by.
        let path = repository.encoded().ok();
        let is_it =
            |name: &RepositoryName| name == repository || (path.is_some() && name.encoded().ok() == path);
        let keys: Vec<_> =
            entries.cache.iter().map(|(key, _)| key).filter(|key| is_it(&key.0)).cloned().collect();
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
            keeping: Keeping::Kept,
        }
    }

    fn key(tag: usize) -> (RepositoryName, TagOrDigest) {
        let repository = RepositoryName::new("docker.io", "library/nginx").unwrap();
        (repository, TagOrDigest::Tag(format!("v{tag}").parse().unwrap()))
    }

    #[test]
    fn forgets_the_least_recently_asked_for() {
        let memory = ManifestMemory::new();
        let each = 100 << 10;
        for tag in 0..60 {
            memory.put(key(tag), manifest(each));
            assert!(memory.get(&key(0)).is_some(), "asked for all the time");
        }
        assert!(memory.get(&key(1)).is_none());
        assert!(memory.get(&key(59)).is_some());
        assert!(memory.0.lock().unwrap().bytes <= BUDGET_BYTES);
    }

    #[test]
    fn what_the_store_could_not_keep_stays_known_until_it_is_something_else() {
        let memory = ManifestMemory::new();
        let settle =
            |tag, padding, keeping| memory.settle(&key(tag), manifest(padding).manifest.digest(), keeping);
        memory.put(key(0), manifest(1));
        settle(0, 1, Keeping::Failed);
        memory.put(key(0), manifest(1));
        assert_eq!(memory.get(&key(0)).unwrap().keeping, Keeping::Failed, "a check of the tag keeps nothing");
        assert!(memory.take_failed(&key(0)));
        assert!(!memory.take_failed(&key(0)), "one caller alone is told");
        settle(0, 2, Keeping::Failed);
        assert!(!memory.take_failed(&key(0)), "that was about another manifest");
        settle(0, 1, Keeping::Failed);
        memory.put(key(0), manifest(2));
        assert_eq!(memory.get(&key(0)).unwrap().keeping, Keeping::Kept);
        settle(1, 1, Keeping::Failed);
        assert!(!memory.take_failed(&key(1)), "what is not remembered is nobody's");
    }

    #[test]
    fn what_is_replaced_is_not_counted_twice() {
        let memory = ManifestMemory::new();
        for padding in [100, 1000, LARGEST_BYTES, 10] {
            memory.put(key(0), manifest(padding));
        }
        let kept = memory.get(&key(0)).unwrap();
        assert_eq!(memory.0.lock().unwrap().bytes, cost_of(&kept));
    }
}
