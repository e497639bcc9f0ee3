//! Who puts what into a cache waits for whoever is putting the same there.
//!
//! Many images have the same layers, and many tags the same image. The second finds what the first has put there, where
//! both would have fetched it; and a registry is spared two writes of the same at once, which not every one can bear:
//! Docker's answers `DIGEST_INVALID` or 500 then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::OwnedMutexGuard, time::timeout};

use crate::content::Digest;

/// How long a turn is waited for.
const LONGEST: Duration = Duration::from_secs(60);

/// Whose turn it is, by digest.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// A turn to put `digest`, which lasts until it is dropped. Who has one asks for no other: nobody waits in a circle.
    ///
    /// `None` where somebody has had it for very long, from a source that is slow perhaps: to do the same twice is then
    /// better than to wait.
    pub(super) async fn of(&self, digest: &Digest) -> Option<OwnedMutexGuard<()>> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(digest).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(digest.clone(), Arc::downgrade(&turn));
            turn
        };
        timeout(LONGEST, turn.lock_owned()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_puts_the_same() {
        let (turns, one, other) = (Turns::default(), Digest::sha256(b"one"), Digest::sha256(b"other"));
        let first = turns.of(&one).await;
        assert!(first.is_some() && turns.of(&other).now_or_never().is_some());
        let mut waiting = Box::pin(turns.of(&one));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(turns.of(&one).now_or_never().is_none(), "who gives up leaves nothing behind");
        drop(first);
        let second = waiting.await;
        assert!(second.is_some() && turns.of(&one).now_or_never().is_none());
        assert!(turns.of(&one).await.is_none(), "nobody waits without end");
        drop(second);
        drop(turns.of(&other).await);
        assert_eq!(turns.0.lock().unwrap().len(), 1, "turns that are over are forgotten");
    }
}
