//! Leases on digests in use, and exclusion of removals.
//!
//! Invariant: no digest is removed while it is leased, and a lease is granted only when no removal of its digests is
//! in progress: its holder either finds the content and keeps it, or finds that it is gone. The collector never waits
//! for a lease (it skips leased digests), and leases do not exclude each other, so there is no deadlock.
//!
//! In addition to leases, recent requests are remembered: a client that pulled a manifest fetches its blobs next, and
//! a client that found a blob pushes the manifest that names it. This memory is bounded and lives as long as the
//! process.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use kuik_core::content::{Digest, Manifest, SourceError};
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::{
    graph::{Key, children},
    peer_intents::{NoticePeriod, PeerCheck, PeerIntents, RemovalIntents},
    removal_intent::RemovalIntent,
};

/// Number of requested digests remembered. About a hundred bytes each.
const ACCESSED: usize = 16_384;

/// Leases of one process on one store. Cheap to clone; clones share their leases.
///
/// By default the store is used by this process only; see [`Leases::shared`].
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    removed: Notify,
    peers: Option<Arc<PeerIntents>>,
}

#[derive(Debug)]
struct State {
    held: HashMap<Key, usize>,
    removing: HashSet<Key>,
    /// Digests leased since a run began that the run has not read yet; `None` outside of runs.
    noted: Option<HashSet<Key>>,
    /// Digests leased for writing since before a run began; empty outside of runs.
    written: HashSet<Key>,
    /// Requested digests, each with the time of its last request.
    accessed: LruCache<Key, Instant>,
}

impl Default for State {
    fn default() -> Self {
        let accessed = LruCache::unbounded();
        Self {
            held: HashMap::new(),
            removing: HashSet::new(),
            noted: None,
            written: HashSet::new(),
            accessed,
        }
    }
}

/// Lease that protects its digests from collection until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the protection"]
pub struct Lease {
    leases: Leases,
    keys: Vec<Key>,
    /// Last check that no other process removes them; `None` without a check or without other processes.
    checked: Option<PeerCheck>,
}

/// Run of the collector, or of another component that removes content. There is one at a time.
#[derive(Debug)]
pub(crate) struct Run {
    leases: Leases,
    /// All digests leased or requested since before it began.
    seen: Mutex<HashSet<Key>>,
}

/// Removal of one digest: new leases on it wait until this is dropped.
#[derive(Debug)]
pub(crate) struct Removal {
    leases: Leases,
    key: Key,
}

impl Leases {
    /// Leases of one process on a store that others use at the same time, all of them with the same `notice`.
    #[must_use]
    pub fn shared(intents: Arc<dyn RemovalIntents>, notice: NoticePeriod) -> Self {
        let peers = Some(Arc::new(PeerIntents::new(intents, notice)));
        Self(Arc::new(Inner { peers, ..Inner::default() }))
    }

    /// Returns whether other processes may use the store.
    pub(super) fn are_shared(&self) -> bool {
        self.0.peers.is_some()
    }

    /// Announces to other processes that `digests` may be removed, and waits for the notice period; `None` if there
    /// are no other processes.
    pub(crate) async fn announce(&self, digests: &[Digest]) -> Result<Option<RemovalIntent>, SourceError> {
        match self.0.peers.clone() {
            Some(peers) => RemovalIntent::announce(peers, digests).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes a lease on `digests`, after waiting until no removal of one of them is in progress.
    pub async fn lease(&self, digests: impl IntoIterator<Item = &Digest>) -> Lease {
        let keys: Vec<Key> = digests.into_iter().map(Key::from).collect();
        let lease = Lease { leases: self.clone(), keys, checked: None };
        {
            let mut state = self.state();
            for key in &lease.keys {
                *state.held.entry(*key).or_default() += 1;
            }
            // Before the content is checked, so that a run that began meanwhile knows about it.
            if let Some(noted) = &mut state.noted {
                noted.extend(&lease.keys);
            }
        }
        loop {
            let removed = self.0.removed.notified();
            if !lease.keys.iter().any(|key| self.state().removing.contains(key)) {
                return lease;
            }
            removed.await;
        }
    }

    /// Takes a lease for a write that relies on `digests`: no other process is removing one of them, and none will
    /// without seeing what is written while the lease [is valid](Lease::is_valid).
    ///
    /// # Errors
    /// Fails with `Unavailable` if another process keeps removing one of them, or if the check for that fails.
    pub async fn lease_for_writing(
        &self,
        digests: impl IntoIterator<Item = &Digest>,
    ) -> Result<Lease, SourceError> {
        let mut lease = self.lease(digests).await;
        {
            let mut state = self.state();
            if state.noted.is_some() {
                state.written.extend(&lease.keys);
            }
        }
        if let Some(peers) = &self.0.peers {
            lease.checked = Some(peers.until_clear(&lease.keys).await?);
        }
        Ok(lease)
    }

    /// Takes a lease on a manifest and all that it names. Holding it from before the check for its blobs until after
    /// the manifest is stored makes a push safe: a blob found then stays.
    ///
    /// # Errors
    /// Fails like [`Leases::lease_for_writing`].
    pub async fn lease_manifest(&self, manifest: &Manifest) -> Result<Lease, SourceError> {
        let mut digests = children(manifest);
        digests.extend(manifest.subject());
        digests.push(manifest.digest().clone());
        self.lease_for_writing(&digests).await
    }

    /// Records a request for `digest`, which exists, at `now`.
    pub(super) fn accessed(&self, digest: &Digest, now: Instant) {
        let key = Key::from(digest);
        let mut state = self.state();
        if let Some(noted) = &mut state.noted {
            noted.insert(key);
        }
        state.accessed.put(key, now);
        if state.accessed.len() > ACCESSED {
            state.accessed.pop_lru();
        }
    }

    /// Begins a run; `None` if another one is in progress. Existing leases count as taken during the run, and so do
    /// requests within `lately`.
    pub(crate) fn begin(&self, lately: Duration) -> Option<Run> {
        let mut state = self.state();
        if state.noted.is_some() {
            return None;
        }
        let accessed = state.accessed.iter().filter(|(_, at)| at.elapsed() < lately).map(|(key, _)| *key);
        let held: HashSet<Key> = state.held.keys().copied().collect();
        state.noted = Some(held.iter().copied().chain(accessed).collect());
        state.written = held;
        Some(Run { leases: self.clone(), seen: Mutex::default() })
    }

    /// Makes new leases on one digest wait, outside of a run; `None` if it is leased or being removed.
    pub(crate) fn exclude(&self, digest: &Digest) -> Option<Removal> {
        self.begin_removal(Key::from(digest))
    }

    fn begin_removal(&self, key: Key) -> Option<Removal> {
        let mut state = self.state();
        if state.held.contains_key(&key) || !state.removing.insert(key) {
            return None;
        }
        Some(Removal { leases: self.clone(), key })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

impl Lease {
    /// Returns whether content found under the lease can still be relied on; always true if no other process uses the
    /// store.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.checked.is_none_or(PeerCheck::is_valid)
    }

    /// Runs `write` while the lease is valid, and cancels it if it takes too long.
    pub(super) async fn within<T>(
        &self,
        write: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        match self.checked {
            Some(checked) => checked.within(write).await,
            None => write.await,
        }
    }
}

impl Run {
    /// Returns the digests leased or requested since the last call.
    pub(super) fn noted(&self) -> HashSet<Key> {
        let noted = self.leases.state().noted.as_mut().map(std::mem::take).unwrap_or_default();
        self.seen.lock().extend(&noted);
        noted
    }

    /// All digests leased or requested since before it began.
    pub(super) fn all_noted(&self) -> HashSet<Key> {
        self.noted();
        self.seen.lock().clone()
    }

    /// Returns whether one of these was leased for writing since before the run began.
    pub(crate) fn has_written(&self, keys: &[Key]) -> bool {
        let state = self.leases.state();
        keys.iter().any(|key| state.written.contains(key))
    }

    /// Begins to remove a digest; `None` if it is leased or already being removed.
    pub(crate) fn remove(&self, key: Key) -> Option<Removal> {
        self.leases.begin_removal(key)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut state = self.leases.state();
        state.noted = None;
        state.written = HashSet::new();
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.leases.state().removing.remove(&self.key);
        self.leases.0.removed.notify_waiters();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.leases.state();
        for key in &self.keys {
            if let Some(count) = state.held.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    state.held.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn lease_prevents_removal_and_waits_for_a_started_one() {
        let (leases, digest) = (Leases::default(), Digest::sha256(b"x"));
        let key = Key::from(&digest);
        let run = leases.begin(Duration::ZERO).unwrap();
        assert!(leases.begin(Duration::ZERO).is_none(), "one run at a time");
        let (one, other) = (
            leases.lease([&digest]).now_or_never().unwrap(),
            leases.lease([&digest, &digest]).now_or_never().unwrap(),
        );
        drop(one);
        assert!(run.remove(key).is_none());
        drop(other);
        assert_eq!(run.noted(), HashSet::from([key]), "the run knows about the lease");

        let removal = run.remove(key).unwrap();
        assert!(leases.exclude(&digest).is_none(), "a digest has one removal at a time");
        let mut waiting = Box::pin(leases.lease([&digest]));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(removal);
        assert!(waiting.now_or_never().is_some());
        drop(run);
        assert!(leases.begin(Duration::ZERO).is_some());
    }

    #[test]
    fn run_includes_earlier_leases() {
        let (leases, digest) = (Leases::default(), Digest::sha256(b"x"));
        let _lease = leases.lease([&digest]).now_or_never().unwrap();
        assert_eq!(leases.begin(Duration::ZERO).unwrap().noted(), HashSet::from([Key::from(&digest)]));
    }

    #[test]
    fn canceled_lease_holds_nothing() {
        let (leases, digest) = (Leases::default(), Digest::sha256(b"x"));
        let run = leases.begin(Duration::ZERO).unwrap();
        let removal = run.remove(Key::from(&digest)).unwrap();
        assert!(leases.lease([&digest]).now_or_never().is_none());
        drop(removal);
        assert!(run.remove(Key::from(&digest)).is_some());
    }

    #[test]
    fn run_includes_recent_requests() {
        let (leases, digest) = (Leases::default(), Digest::sha256(b"x"));
        leases.accessed(&digest, Instant::now());
        assert!(leases.begin(Duration::ZERO).unwrap().noted().is_empty());
        let lately = Duration::from_secs(3600);
        assert_eq!(leases.begin(lately).unwrap().noted(), HashSet::from([Key::from(&digest)]));
        for n in 0..ACCESSED {
            leases.accessed(&Digest::sha256(&n.to_be_bytes()), Instant::now());
        }
        let noted = leases.begin(lately).unwrap().noted();
        assert_eq!(noted.len(), ACCESSED, "the memory is bounded");
        assert!(!noted.contains(&Key::from(&digest)), "the oldest is forgotten");
    }

    #[test]
    fn run_notes_requests_during_it() {
        let (leases, digest) = (Leases::default(), Digest::sha256(b"x"));
        let run = leases.begin(Duration::ZERO).unwrap();
        leases.accessed(&digest, Instant::now());
        assert_eq!(run.noted(), HashSet::from([Key::from(&digest)]));
    }
}
