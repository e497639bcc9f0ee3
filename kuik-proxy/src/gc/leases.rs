//! Who relies on which digest now, and what the collector is removing now.
//!
//! Invariant: nothing is removed while it is leased, and a lease is had only when no removal of its digests is under
//! way: who has one either sees the content and keeps it, or sees that it is gone. The collector never waits for a
//! lease (it passes over what is leased), and leases do not exclude each other: nobody can wait for one another in a
//! circle.
//!
//! Beside leases there is a memory of what was asked for a little while ago: a client that got a manifest comes for its
//! blobs next, and one that was told that a blob is there pushes the manifest that names it. It lives as long as the
//! process, and is bounded.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kuik_core::content::{Digest, Manifest, SourceError};
use lru::LruCache;
use tokio::sync::Notify;

use super::{
    announced::Announced,
    graph::{Key, children},
    peers::{Announcements, Looked, Notice, Peers},
};

/// How many digests that were asked for are remembered. A hundred bytes each.
const ASKED: usize = 16_384;

/// The leases of one process on one store. Cheap to clone; clones share their leases.
///
/// By default the store is this process's alone; see [`Leases::shared`].
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    removed: Notify,
    peers: Option<Arc<Peers>>,
}

#[derive(Debug)]
struct State {
    held: HashMap<Key, usize>,
    removing: HashSet<Key>,
    /// What was leased since a run began, and that the run has not looked at yet; `None` outside of runs.
    noted: Option<HashSet<Key>>,
    /// What was leased for writing since before a run began; empty outside of runs.
    written: HashSet<Key>,
    /// What was asked for, and when last.
    asked: LruCache<Key, Instant>,
}

impl Default for State {
    fn default() -> Self {
        let asked = LruCache::unbounded();
        Self { held: HashMap::new(), removing: HashSet::new(), noted: None, written: HashSet::new(), asked }
    }
}

/// Keeps what it is for from being collected until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the protection"]
pub struct Lease {
    leases: Leases,
    keys: Vec<Key>,
    /// When it was seen that no other process removes them; `None` where nobody looked, or there is no other.
    looked: Option<Looked>,
}

/// One run of the collector, or of whoever else takes things away. There is one at a time.
#[derive(Debug)]
pub(crate) struct Run {
    leases: Leases,
    /// All that was leased or asked for since before it began.
    told: Mutex<HashSet<Key>>,
}

/// Keeps new leases on one digest waiting until it is dropped.
#[derive(Debug)]
pub(crate) struct Removal {
    leases: Leases,
    key: Key,
}

impl Leases {
    /// The leases of one process on a store that others use at the same time, all of them with the same `notice`.
    #[must_use]
    pub fn shared(announcements: Arc<dyn Announcements>, notice: Notice) -> Self {
        let peers = Some(Arc::new(Peers::new(announcements, notice)));
        Self(Arc::new(Inner { peers, ..Inner::default() }))
    }

    /// Whether other processes may use the store.
    pub(super) fn are_shared(&self) -> bool {
        self.0.peers.is_some()
    }

    /// Tells other processes that `digests` may be removed, and waits until they have taken notice; `None` where there
    /// are no others.
    pub(crate) async fn announce(&self, digests: &[Digest]) -> Result<Option<Announced>, SourceError> {
        match self.0.peers.clone() {
            Some(peers) => Announced::announce(peers, digests).await.map(Some),
            None => Ok(None),
        }
    }

    /// A lease on `digests`: it waits until no removal of one of them is under way.
    pub async fn lease(&self, digests: impl IntoIterator<Item = &Digest>) -> Lease {
        let keys: Vec<Key> = digests.into_iter().map(Key::from).collect();
        let lease = Lease { leases: self.clone(), keys, looked: None };
        {
            let mut state = self.state();
            for key in &lease.keys {
                *state.held.entry(*key).or_default() += 1;
            }
            // Before the content is looked at, so that a run that began meanwhile knows of it.
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

    /// A lease for whoever is about to write what relies on `digests`: no other process is removing one of them, and
    /// none will without seeing what is written while the lease [counts](Lease::counts).
    ///
    /// # Errors
    /// `Unavailable` where another process goes on removing one of them, and those of looking for that.
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
            lease.looked = Some(peers.until_clear(&lease.keys).await?);
        }
        Ok(lease)
    }

    /// A lease on a manifest and all that it names. To have it from before its blobs are looked for until after it is
    /// kept is what makes a push safe: a blob that is found then stays.
    ///
    /// # Errors
    /// As of [`Leases::lease_for_writing`].
    pub async fn lease_manifest(&self, manifest: &Manifest) -> Result<Lease, SourceError> {
        let mut digests = children(manifest);
        digests.extend(manifest.subject());
        digests.push(manifest.digest().clone());
        self.lease_for_writing(&digests).await
    }

    /// Remembers that somebody asked for `digest`, at `now`, and has it.
    pub(super) fn asked(&self, digest: &Digest, now: Instant) {
        let key = Key::from(digest);
        let mut state = self.state();
        if let Some(noted) = &mut state.noted {
            noted.insert(key);
        }
        state.asked.put(key, now);
        if state.asked.len() > ASKED {
            state.asked.pop_lru();
        }
    }

    /// Begins a run; `None` while another one goes on. What is leased already counts as leased during the run, and so
    /// does what was asked for within `lately`.
    pub(crate) fn begin(&self, lately: Duration) -> Option<Run> {
        let mut state = self.state();
        if state.noted.is_some() {
            return None;
        }
        let asked = state.asked.iter().filter(|(_, at)| at.elapsed() < lately).map(|(key, _)| *key);
        let held: HashSet<Key> = state.held.keys().copied().collect();
        state.noted = Some(held.iter().copied().chain(asked).collect());
        state.written = held;
        Some(Run { leases: self.clone(), told: Mutex::default() })
    }

    /// Keeps new leases on one digest waiting, outside of a run; `None` where it is leased, or being removed.
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
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Whether what was found under it may still be relied on. Where the store is this process's alone it always may.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.looked.is_none_or(Looked::counts)
    }

    /// Does `write` while the lease counts, and gives it up where it takes too long.
    pub(super) async fn within<T>(
        &self,
        write: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        match self.looked {
            Some(looked) => looked.within(write).await,
            None => write.await,
        }
    }
}

impl Run {
    /// What was leased or asked for since the last time that this was asked.
    pub(super) fn noted(&self) -> HashSet<Key> {
        let noted = self.leases.state().noted.as_mut().map(std::mem::take).unwrap_or_default();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).extend(&noted);
        noted
    }

    /// All that was leased or asked for since before the run began: it is spared until its end, however often it sweeps.
    pub(super) fn all_noted(&self) -> HashSet<Key> {
        self.noted();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether one of these was leased for writing since before the run began.
    pub(crate) fn has_written(&self, keys: &[Key]) -> bool {
        let state = self.leases.state();
        keys.iter().any(|key| state.written.contains(key))
    }

    /// Begins to remove something; `None` where it is leased, or somebody else is at it.
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
    fn what_is_leased_is_not_removed_and_what_is_removed_is_waited_for() {
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
        assert_eq!(run.noted(), HashSet::from([key]), "the run knows that somebody relied on it");

        let removal = run.remove(key).unwrap();
        assert!(leases.exclude(&digest).is_none(), "one removes it");
        let mut waiting = Box::pin(leases.lease([&digest]));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(removal);
        assert!(waiting.now_or_never().is_some());
        drop(run);
        assert!(leases.begin(Duration::ZERO).is_some());
    }

    #[test]
    fn a_run_knows_what_was_leased_before_it() {
        let (leases, digest) = (Leases::default(), Digest::sha256(b"x"));
        let _lease = leases.lease([&digest]).now_or_never().unwrap();
        assert_eq!(leases.begin(Duration::ZERO).unwrap().noted(), HashSet::from([Key::from(&digest)]));
    }

    #[test]
    fn who_gives_up_waiting_holds_nothing() {
        let (leases, digest) = (Leases::default(), Digest::sha256(b"x"));
        let run = leases.begin(Duration::ZERO).unwrap();
        let removal = run.remove(Key::from(&digest)).unwrap();
        assert!(leases.lease([&digest]).now_or_never().is_none());
        drop(removal);
        assert!(run.remove(Key::from(&digest)).is_some());
    }

    #[test]
    fn a_run_knows_what_was_asked_for_lately() {
        let (leases, digest) = (Leases::default(), Digest::sha256(b"x"));
        leases.asked(&digest, Instant::now());
        assert!(leases.begin(Duration::ZERO).unwrap().noted().is_empty());
        let lately = Duration::from_secs(3600);
        assert_eq!(leases.begin(lately).unwrap().noted(), HashSet::from([Key::from(&digest)]));
        for n in 0..ASKED {
            leases.asked(&Digest::sha256(&n.to_be_bytes()), Instant::now());
        }
        let noted = leases.begin(lately).unwrap().noted();
        assert_eq!(noted.len(), ASKED, "the memory is bounded");
        assert!(!noted.contains(&Key::from(&digest)), "the oldest is forgotten");
    }

    #[test]
    fn what_is_asked_for_during_a_run_is_noted() {
        let (leases, digest) = (Leases::default(), Digest::sha256(b"x"));
        let run = leases.begin(Duration::ZERO).unwrap();
        leases.asked(&digest, Instant::now());
        assert_eq!(run.noted(), HashSet::from([Key::from(&digest)]));
    }
}
