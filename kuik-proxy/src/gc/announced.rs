//! What this process has said that it removes, and until when it may.
//!
//! Invariant: from the first announcement on, every look of a writer in another process finds one that it still waits
//! for. So an announcement is renewed before the one before it is void, and where that comes too late no removal begins
//! any more.

use std::sync::{Arc, Mutex, PoisonError};

use kuik_core::content::{Digest, SourceError};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::peers::Peers;

/// How often an announcement is renewed at most: whoever hangs is not waited for without end.
const RENEWALS: u32 = 24;

/// An announcement of this process, renewed until it is taken back. Dropping it does not take it back, and renews it no
/// more: nobody knows then what is still on its way.
#[derive(Debug)]
pub(crate) struct Announced {
    peers: Arc<Peers>,
    until: Arc<Mutex<Instant>>,
    stop: oneshot::Sender<()>,
    /// Renews it, and returns the names that it has had.
    renewing: JoinHandle<Vec<String>>,
}

impl Announced {
    /// Says that `digests` are about to be removed, and waits until that may begin.
    pub(super) async fn announce(peers: Arc<Peers>, digests: &[Digest]) -> Result<Self, SourceError> {
        peers.withdraw_void().await;
        let began = Instant::now();
        let name = peers.announce_as_own(digests).await?;
        let until = Arc::new(Mutex::new(began + peers.notice.until()));
        let (stop, stopped) = oneshot::channel();
        let renewal = Renewal { peers: peers.clone(), digests: digests.to_vec(), until: until.clone() };
        let renewing = tokio::spawn(renewal.run(name, stopped));
        let announced = Self { peers, until, stop, renewing };
        sleep(announced.peers.notice.length()).await;
        Ok(announced)
    }

    /// Whether removals may still begin.
    pub(crate) fn counts(&self) -> bool {
        Instant::now() < self.end()
    }

    /// When the last removal begins, as far as is known.
    pub(super) fn end(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it back: every removal has been answered.
    pub(crate) async fn withdraw(self) -> Result<(), SourceError> {
        let Self { peers, stop, renewing, .. } = self;
        drop(stop);
        // One that is lost is void after a while.
        for name in renewing.await.unwrap_or_default() {
            peers.withdraw_own(&name).await?;
        }
        Ok(())
    }
}

struct Renewal {
    peers: Arc<Peers>,
    digests: Vec<Digest>,
    until: Arc<Mutex<Instant>>,
}

impl Renewal {
    async fn run(self, first: String, mut stopped: oneshot::Receiver<()>) -> Vec<String> {
        let mut names = vec![first];
        for _ in 0..RENEWALS {
            // Long before the one before it counts no more.
            let pause = self.peers.notice.length() * 3 / 2;
            tokio::select! {
                _ = &mut stopped => return names,
                () = sleep(pause) => {}
            }
            let (began, due) = (Instant::now(), *self.until.lock().unwrap_or_else(PoisonError::into_inner));
            // Also where it stops meanwhile: what is put has to be known, to be taken back.
            match timeout_at(due, self.peers.announce_as_own(&self.digests)).await {
                Ok(Ok(name)) => names.push(name),
                Ok(Err(error)) => {
                    tracing::warn!(error = error.chain(), "an announcement of removals was not renewed");
                    return names;
                }
                Err(_) => return names,
            }
            *self.until.lock().unwrap_or_else(PoisonError::into_inner) = began + self.peers.notice.until();
        }
        names
    }
}
