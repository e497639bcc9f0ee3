//! Removal intents of other processes on the same store.
//!
//! A process announces a removal first ([`RemovalIntent`](super::removal_intent::RemovalIntent)), waits
//! ([`NoticePeriod`]), checks again whether anything refers to the content, removes it if not, and withdraws the
//! announcement. A writer checks for announcements first, and waits if one names content the write relies on. From
//! that check on it has a bounded time to finish the write; after that it checks again.
//!
//! Invariant: a removal begins only when every write that cannot have seen its announcement is visible or canceled.
//! So either the writer has seen the announcement, or the remover sees the write. Each process measures durations on
//! its own clock; no two clocks are compared.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kuik_core::content::{Digest, SourceError, SourceErrorKind};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout_at};

use super::graph::Key;

/// Polling interval of a waiting writer.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of digests in one announcement.
pub(super) const ANNOUNCED_AT_ONCE: usize = 5_000;

/// Time between an announcement and its removals. All processes that share a store use the same.
///
/// It has three equal parts: from a writer's check to the start of the write that makes content reachable; the time
/// limit of that write; and the time for requests that are then still on their way to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoticePeriod(Duration);

impl NoticePeriod {
    /// Creates a notice period of this length.
    #[must_use]
    pub const fn new(notice: Duration) -> Self {
        Self(notice)
    }

    pub(super) fn length(self) -> Duration {
        self.0
    }

    fn check_validity(self) -> Duration {
        self.0 / 3
    }

    fn write_timeout(self) -> Duration {
        self.0 / 3
    }

    /// Time from the last announcement to the last start of a removal.
    pub(super) fn removal_window(self) -> Duration {
        self.0 * 2
    }

    /// Age after which writers ignore an announcement: its process is gone or has stopped removing.
    fn expiry(self) -> Duration {
        self.0 * 3
    }

    /// Time limit of one wait, longer than the wait for a process that is gone. If a run takes longer, the write
    /// fails and can be retried.
    fn wait_limit(self) -> Duration {
        self.0 * 4
    }
}

/// 30 seconds: ten are enough to check for the blobs of a manifest with hundreds of platforms.
impl Default for NoticePeriod {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

/// Board on which the processes on one store announce removals.
///
/// Every read that begins after an announcement was acknowledged sees it.
#[async_trait]
pub trait RemovalIntents: fmt::Debug + Send + Sync + 'static {
    /// Announces that these digests are about to be removed; at most 5,000. Returns the unique name of the
    /// announcement.
    async fn announce(&self, digests: &[Digest]) -> Result<String, SourceError>;

    /// Returns the names of all announcements.
    async fn announced(&self) -> Result<Vec<String>, SourceError>;

    /// Returns the digests of an announcement; `None` if it has been withdrawn.
    async fn digests(&self, name: &str) -> Result<Option<Vec<Digest>>, SourceError>;

    /// Withdraws an announcement. One that is already gone counts as withdrawn.
    async fn withdraw(&self, name: &str) -> Result<(), SourceError>;
}

/// Removal intents of the other processes on the same store.
#[derive(Debug)]
pub(super) struct PeerIntents {
    intents: Arc<dyn RemovalIntents>,
    pub(super) notice: NoticePeriod,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Announcements of this process, within which leases do the same job.
    own: HashSet<String>,
    others: HashMap<String, Other>,
}

/// Announcement of another process.
#[derive(Debug, Clone)]
struct Other {
    keys: Arc<HashSet<Key>>,
    seen: Instant,
}

/// A writer's check for announcements, which is valid for a limited time.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerCheck {
    at: Instant,
    notice: NoticePeriod,
}

impl PeerIntents {
    pub(super) fn new(intents: Arc<dyn RemovalIntents>, notice: NoticePeriod) -> Self {
        Self { intents, notice, state: Mutex::default() }
    }

    /// Waits until no other process is removing any of `keys`.
    pub(super) async fn until_clear(&self, keys: &[Key]) -> Result<PeerCheck, SourceError> {
        let wait_limit = Instant::now() + self.notice.wait_limit();
        loop {
            let check = PeerCheck { at: Instant::now(), notice: self.notice };
            if !self.is_removing(keys).await? {
                return Ok(check);
            }
            if check.at > wait_limit {
                let attempted = "write content that another process is removing: try again in a minute";
                return Err(SourceError::new(SourceErrorKind::Unavailable, attempted));
            }
            sleep(POLL_INTERVAL.min(self.notice.check_validity())).await;
        }
    }

    /// Returns whether another process is removing one of `keys`.
    async fn is_removing(&self, keys: &[Key]) -> Result<bool, SourceError> {
        let names = self.intents.announced().await?;
        self.state().others.retain(|name, _| names.contains(name));
        let mut removing = false;
        for name in names {
            let state = {
                let state = self.state();
                if state.own.contains(&name) {
                    continue;
                }
                state.others.get(&name).cloned()
            };
            let other = match state {
                Some(other) => other,
                None => {
                    let seen = Instant::now();
                    let Some(digests) = self.intents.digests(&name).await? else { continue };
                    let keys = Arc::new(digests.iter().map(Key::from).collect());
                    let other = Other { keys, seen };
                    self.state().others.insert(name, other.clone());
                    other
                }
            };
            removing |= !self.has_expired(&other) && keys.iter().any(|key| other.keys.contains(key));
        }
        Ok(removing)
    }

    /// Announces the removal of `digests` by this process, in as many announcements as needed.
    pub(super) async fn announce_as_own(&self, digests: &[Digest]) -> Result<Vec<String>, SourceError> {
        let mut names = Vec::new();
        for digests in digests.chunks(ANNOUNCED_AT_ONCE) {
            match self.intents.announce(digests).await {
                Ok(name) => {
                    self.state().own.insert(name.clone());
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

    /// Withdraws announcements of this process. One that cannot be withdrawn expires.
    pub(super) async fn withdraw_own(&self, names: Vec<String>) {
        for name in names {
            match self.intents.withdraw(&name).await {
                Ok(()) => drop(self.state().own.remove(&name)),
                Err(error) => {
                    tracing::warn!(
                        error = error.chain(),
                        "cannot withdraw removal announcement, it expires by itself"
                    );
                }
            }
        }
    }

    /// Withdraws announcements of processes that are gone. If that fails, it is retried later.
    pub(super) async fn withdraw_expired(&self) {
        if let Err(error) = self.is_removing(&[]).await {
            tracing::debug!(error = error.chain(), "cannot read removal announcements of other processes");
        }
        let expiry: Vec<String> = {
            let state = self.state();
            let expiry = state.others.iter().filter(|(_, other)| self.has_expired(other));
            expiry.map(|(name, _)| name.clone()).collect()
        };
        for name in expiry {
            match self.intents.withdraw(&name).await {
                Ok(()) => drop(self.state().others.remove(&name)),
                Err(error) => tracing::debug!(
                    error = error.chain(),
                    "cannot withdraw expired removal announcement, retrying later"
                ),
            }
        }
    }

    fn has_expired(&self, other: &Other) -> bool {
        other.seen.elapsed() >= self.notice.expiry()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl PeerCheck {
    /// Returns whether a write that relies on the check may still begin.
    pub(super) fn is_valid(self) -> bool {
        self.at.elapsed() < self.notice.check_validity()
    }

    /// Runs `write`, and cancels it if it takes too long.
    ///
    /// # Errors
    /// Fails if `write` fails, and with `Unavailable` if it is or becomes too late.
    pub(super) async fn within<T>(
        self,
        write: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let late = || {
            let attempted =
                "write before the content it relies on may be removed: it took too long, try again";
            SourceError::new(SourceErrorKind::Unavailable, attempted)
        };
        if !self.is_valid() {
            return Err(late());
        }
        timeout_at(self.at + self.notice.check_validity() + self.notice.write_timeout(), write)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
#[path = "peer_intents_tests.rs"]
mod tests;
