//! What this process has said that it removes, and until when it may.
//!
//! Invariant: from the first announcement on, every look of a writer in another process finds one that it still waits
//! for. So an announcement is renewed before the one before it is void, and where that comes too late no removal begins
//! any more.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kuik_core::content::{Digest, SourceError};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::peers::Peers;

/// How often an announcement is renewed at most: whoever hangs is not waited for without end.
const RENEWALS: u32 = 100;
/// How soon a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// An announcement of this process, renewed until it is taken back. Dropping it does not take it back, and renews it no
/// more: nobody knows then what is still on its way.
#[derive(Debug)]
pub(crate) struct Announced {
    peers: Arc<Peers>,
    until: Until,
    stop: oneshot::Sender<()>,
    /// Renews it, and returns the names that it has had.
    renewing: JoinHandle<Vec<String>>,
}

/// Until when removals may begin, as far as is known. Clones know the same.
#[derive(Debug, Clone)]
pub(crate) struct Until(Arc<Mutex<Instant>>);

impl Until {
    /// Whether they may begin now.
    pub(crate) fn counts(&self) -> bool {
        Instant::now() < self.end()
    }

    pub(super) fn end(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, end: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }
}

impl Announced {
    /// Says that `digests` are about to be removed, and waits until that may begin.
    pub(super) async fn announce(peers: Arc<Peers>, digests: &[Digest]) -> Result<Self, SourceError> {
        peers.withdraw_void().await;
        let began = Instant::now();
        let names = peers.announce_as_own(digests).await?;
        let until = Until(Arc::new(Mutex::new(began + peers.notice.until())));
        let (stop, stopped) = oneshot::channel();
        let renewal = Renewal { peers: peers.clone(), digests: digests.to_vec(), until: until.clone() };
        let renewing = tokio::spawn(renewal.run(names, stopped));
        let announced = Self { peers, until, stop, renewing };
        sleep(announced.peers.notice.length()).await;
        Ok(announced)
    }

    /// Until when removals may begin: asked before each of them.
    pub(crate) fn until(&self) -> &Until {
        &self.until
    }

    /// Takes it back: every removal has been answered. What cannot be taken back is void after a while.
    pub(crate) async fn withdraw(self) {
        let Self { peers, stop, renewing, .. } = self;
        drop(stop);
        peers.withdraw_own(renewing.await.unwrap_or_default()).await;
    }
}

struct Renewal {
    peers: Arc<Peers>,
    digests: Vec<Digest>,
    until: Until,
}

impl Renewal {
    async fn run(self, mut names: Vec<String>, mut stopped: oneshot::Receiver<()>) -> Vec<String> {
        for _ in 0..RENEWALS {
            // Long before the one before it counts no more.
            let pause = self.peers.notice.length() * 3 / 2;
            tokio::select! {
                _ = &mut stopped => return names,
                () = sleep(pause) => {}
            }
            // One that has begun comes to its end also where this stops meanwhile: it has to be taken back.
            match self.renew().await {
                Some(renewed) => names.extend(renewed),
                None => return names,
            }
        }
        names
    }

    /// Announces it once more, in time; its names then.
    async fn renew(&self) -> Option<Vec<String>> {
        let due = self.until.end();
        loop {
            let began = Instant::now();
            match timeout_at(due, self.peers.announce_as_own(&self.digests)).await {
                Ok(Ok(names)) => {
                    self.until.extend(began + self.peers.notice.until());
                    return Some(names);
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = error.chain(), "an announcement of removals was not renewed");
                    sleep(AGAIN).await;
                }
                Err(_) => return None,
            }
        }
    }
}
