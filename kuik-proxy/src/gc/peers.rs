//! What other processes on the same store are removing.
//!
//! A process that is about to remove something says so first ([`Announced`](super::announced::Announced)), waits
//! ([`Notice`]), looks again whether anything relies on it, removes what nothing does, and takes that back. Whoever
//! writes looks for announcements first, and waits where one names what the write relies on. From that look on it has a
//! bounded time in which what it writes has to be there; after that it looks again.
//!
//! Invariant: a removal begins only when every write that cannot have seen its announcement is visible or given up. So
//! either the writer has seen the announcement, or the remover sees what was written. Each process measures on a clock
//! of its own how long something takes; no two clocks are compared.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kuik_core::content::{Digest, SourceError, SourceErrorKind};
use tokio::time::{Instant, sleep, timeout_at};

use super::graph::Key;

/// How often a writer that waits looks again.
const LOOK: Duration = Duration::from_secs(1);

/// How many digests one announcement may name.
pub(super) const ANNOUNCED_AT_ONCE: usize = 5_000;

/// How long before a removal the other processes are told of it. All that share a store have the same.
///
/// It is shared out: a third of it is what a writer has from its look to the beginning of what makes content reachable,
/// a third what that may take until it is given up, and a third is for what is on its way to the provider then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice(Duration);

impl Notice {
    /// So long.
    #[must_use]
    pub const fn new(notice: Duration) -> Self {
        Self(notice)
    }

    pub(super) fn length(self) -> Duration {
        self.0
    }

    fn section(self) -> Duration {
        self.0 / 3
    }

    fn put(self) -> Duration {
        self.0 / 3
    }

    /// How long after its last announcement the last removal begins.
    pub(super) fn until(self) -> Duration {
        self.0 * 2
    }

    /// After how long nobody waits for an announcement any more: who made it is gone, or has given up.
    fn void(self) -> Duration {
        self.0 * 3
    }

    /// How long a writer waits at a time: longer than for a process that is gone. Where a run goes on for longer, the
    /// writer is told to try again.
    fn patience(self) -> Duration {
        self.0 * 4
    }
}

/// Half a minute: ten seconds are enough to look for the blobs of a manifest with hundreds of platforms.
impl Default for Notice {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

/// Where the processes on one store tell one another what they are removing.
///
/// What is announced is seen by every look that begins after the announcement was acknowledged.
#[async_trait]
pub trait Announcements: fmt::Debug + Send + Sync + 'static {
    /// Says that these digests are about to be removed; at most 5,000. Returns the announcement's name, which no
    /// other one has.
    async fn announce(&self, digests: &[Digest]) -> Result<String, SourceError>;

    /// The names of all announcements.
    async fn announced(&self) -> Result<Vec<String>, SourceError>;

    /// What an announcement names; `None` where it has been taken back.
    async fn digests(&self, name: &str) -> Result<Option<Vec<Digest>>, SourceError>;

    /// Takes an announcement back. One that is gone already counts as taken back.
    async fn withdraw(&self, name: &str) -> Result<(), SourceError>;
}

/// The other processes on the same store.
#[derive(Debug)]
pub(super) struct Peers {
    announcements: Arc<dyn Announcements>,
    pub(super) notice: Notice,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Our own announcements: within a process, leases do what these do between processes.
    own: HashSet<String>,
    others: HashMap<String, Other>,
}

/// An announcement of another process.
#[derive(Debug, Clone)]
struct Other {
    keys: Arc<HashSet<Key>>,
    seen: Instant,
}

/// Until when a writer that has looked for announcements may rely on what it saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    at: Instant,
    notice: Notice,
}

impl Peers {
    pub(super) fn new(announcements: Arc<dyn Announcements>, notice: Notice) -> Self {
        Self { announcements, notice, known: Mutex::default() }
    }

    /// Waits until no other process is removing any of `keys`.
    pub(super) async fn until_clear(&self, keys: &[Key]) -> Result<Looked, SourceError> {
        let patience = Instant::now() + self.notice.patience();
        loop {
            let looked = Looked { at: Instant::now(), notice: self.notice };
            if !self.is_removing(keys).await? {
                return Ok(looked);
            }
            if looked.at > patience {
                let attempted = "write what another process is removing: try again in a minute";
                return Err(SourceError::new(SourceErrorKind::Unavailable, attempted));
            }
            sleep(LOOK.min(self.notice.section())).await;
        }
    }

    /// Whether another process is removing one of `keys`.
    async fn is_removing(&self, keys: &[Key]) -> Result<bool, SourceError> {
        let names = self.announcements.announced().await?;
        self.known().others.retain(|name, _| names.contains(name));
        let mut removing = false;
        for name in names {
            let known = {
                let known = self.known();
                if known.own.contains(&name) {
                    continue;
                }
                known.others.get(&name).cloned()
            };
            let other = match known {
                Some(other) => other,
                None => {
                    let seen = Instant::now();
                    let Some(digests) = self.announcements.digests(&name).await? else { continue };
                    let keys = Arc::new(digests.iter().map(Key::from).collect());
                    let other = Other { keys, seen };
                    self.known().others.insert(name, other.clone());
                    other
                }
            };
            removing |= !self.is_void(&other) && keys.iter().any(|key| other.keys.contains(key));
        }
        Ok(removing)
    }

    /// Says that `digests` are being removed, by this process. However many there are: each announcement has some.
    pub(super) async fn announce_as_own(&self, digests: &[Digest]) -> Result<Vec<String>, SourceError> {
        let mut names = Vec::new();
        for digests in digests.chunks(ANNOUNCED_AT_ONCE) {
            match self.announcements.announce(digests).await {
                Ok(name) => {
                    self.known().own.insert(name.clone());
                    names.push(name);
                }
                Err(error) => {
                    self.withdraw_own(names).await;
                    return Err(error);
                }
            }
        }
        Ok(names)
    }

    /// Takes announcements of this process back. What cannot be taken back is void after a while.
    pub(super) async fn withdraw_own(&self, names: Vec<String>) {
        for name in names {
            match self.announcements.withdraw(&name).await {
                Ok(()) => drop(self.known().own.remove(&name)),
                Err(error) => {
                    tracing::warn!(error = error.chain(), "an announcement of removals was not taken back");
                }
            }
        }
    }

    /// Takes back what processes have announced that are gone. Where that fails it is done another time.
    pub(super) async fn withdraw_void(&self) {
        if let Err(error) = self.is_removing(&[]).await {
            tracing::debug!(error = error.chain(), "it is not known what other processes remove");
        }
        let void: Vec<String> = {
            let known = self.known();
            let void = known.others.iter().filter(|(_, other)| self.is_void(other));
            void.map(|(name, _)| name.clone()).collect()
        };
        for name in void {
            match self.announcements.withdraw(&name).await {
                Ok(()) => drop(self.known().others.remove(&name)),
                Err(error) => tracing::debug!(error = error.chain(), "an announcement that is void stays"),
            }
        }
    }

    fn is_void(&self, other: &Other) -> bool {
        other.seen.elapsed() >= self.notice.void()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Looked {
    /// Whether what relies on the look may still begin.
    pub(super) fn counts(self) -> bool {
        self.at.elapsed() < self.notice.section()
    }

    /// Begins `write`, and gives it up where it takes too long.
    ///
    /// # Errors
    /// Those of `write`, and `Unavailable` where it is too late for it, or becomes so.
    pub(super) async fn within<T>(
        self,
        write: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let late = || {
            let attempted = "write before what it relies on may be removed: it took too long, try again";
            SourceError::new(SourceErrorKind::Unavailable, attempted)
        };
        if !self.counts() {
            return Err(late());
        }
        timeout_at(self.at + self.notice.section() + self.notice.put(), write)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
