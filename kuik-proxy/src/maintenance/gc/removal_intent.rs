//! Removal intents of this process: announcements and their deadlines.
//!
//! Invariant: from the first announcement on, every check of a writer in another process finds one that is still in
//! force. So an announcement is renewed before the previous one expires, and if that comes too late no further
//! removal begins.

use std::{sync::Arc, time::Duration};

use kuik_core::content::{Digest, SourceError};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::peer_intents::PeerIntents;

/// Maximum number of renewals, so that the wait for a hung process is bounded.
const RENEWALS: u32 = 100;
/// Delay before a failed renewal is retried.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Announcement of this process, renewed until it is withdrawn. Dropping it does not withdraw it, but ends the
/// renewals: requests may still be on their way.
#[derive(Debug)]
pub(crate) struct RemovalIntent {
    peers: Arc<PeerIntents>,
    deadline: Deadline,
    stop: oneshot::Sender<()>,
    /// Renews it, and returns the names it has had.
    renewing: JoinHandle<Vec<String>>,
}

/// Last known time at which removals may begin. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    /// Returns whether removals may begin now.
    pub(crate) fn is_valid(&self) -> bool {
        Instant::now() < self.end()
    }

    pub(super) fn end(&self) -> Instant {
        *self.0.lock()
    }

    fn extend(&self, end: Instant) {
        *self.0.lock() = end;
    }
}

impl RemovalIntent {
    /// Announces the removal of `digests`, and waits until it may begin.
    pub(super) async fn announce(peers: Arc<PeerIntents>, digests: &[Digest]) -> Result<Self, SourceError> {
        peers.withdraw_expired().await;
        let began = Instant::now();
        let names = peers.announce_as_own(digests).await?;
        let deadline = Deadline(Arc::new(Mutex::new(began + peers.notice.removal_window())));
        let (stop, stopped) = oneshot::channel();
        let renewal = Renewal { peers: peers.clone(), digests: digests.to_vec(), deadline: deadline.clone() };
        let renewing = tokio::spawn(renewal.run(names, stopped));
        let announced = Self { peers, deadline, stop, renewing };
        sleep(announced.peers.notice.length()).await;
        Ok(announced)
    }

    /// Returns the deadline for starting removals; it is checked before each of them.
    pub(crate) fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Withdraws it, after every removal has ended. One that cannot be withdrawn expires.
    pub(crate) async fn withdraw(self) {
        let Self { peers, stop, renewing, .. } = self;
        drop(stop);
        peers.withdraw_own(renewing.await.unwrap_or_default()).await;
    }
}

struct Renewal {
    peers: Arc<PeerIntents>,
    digests: Vec<Digest>,
    deadline: Deadline,
}

impl Renewal {
    async fn run(self, mut names: Vec<String>, mut stopped: oneshot::Receiver<()>) -> Vec<String> {
        for _ in 0..RENEWALS {
            // Well before the previous one expires.
            let pause = self.peers.notice.length() * 3 / 2;
            tokio::select! {
                _ = &mut stopped => return names,
                () = sleep(pause) => {}
            }
            // A started renewal finishes even if this stops meanwhile: it must be withdrawn.
            match self.renew().await {
                Some(renewed) => names.extend(renewed),
                None => return names,
            }
        }
        names
    }

    /// Announces it again before the deadline; returns the new names.
    async fn renew(&self) -> Option<Vec<String>> {
        let due = self.deadline.end();
        loop {
            let began = Instant::now();
            match timeout_at(due, self.peers.announce_as_own(&self.digests)).await {
                Ok(Ok(names)) => {
                    self.deadline.extend(began + self.peers.notice.removal_window());
                    return Some(names);
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = error.chain(), "cannot renew removal announcement, retrying");
                    sleep(RETRY_DELAY).await;
                }
                Err(_) => return None,
            }
        }
    }
}
