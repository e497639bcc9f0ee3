//! Keyed lock: serializes writes of the same content to a cache.
//!
//! Many images share layers, and many tags the same image. The second writer finds the content of the first instead of
//! fetching it again, and the registry never gets two concurrent writes of the same content, which not all support:
//! Docker's responds with `DIGEST_INVALID` or 500.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::OwnedMutexGuard, time::timeout};

use crate::content::Digest;

/// Maximum wait for the lock.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// One lock per digest.
#[derive(Debug, Default)]
pub(super) struct KeyedLock(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl KeyedLock {
    /// Locks `digest` until the guard is dropped. A holder must not take a second lock, which rules out deadlocks.
    ///
    /// Returns `None` if the lock is held for too long, perhaps because of a slow source: duplicate work is then better
    /// than waiting.
    pub(super) async fn lock(&self, digest: &Digest) -> Option<OwnedMutexGuard<()>> {
        let lock = {
            let mut locks = self.0.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let lock = locks.get(digest).and_then(Weak::upgrade).unwrap_or_default();
            locks.insert(digest.clone(), Arc::downgrade(&lock));
            lock
        };
        timeout(MAX_WAIT, lock.lock_owned()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lock_is_exclusive_per_digest_and_times_out() {
        let (locks, one, other) = (KeyedLock::default(), Digest::sha256(b"one"), Digest::sha256(b"other"));
        let first = locks.lock(&one).await;
        assert!(first.is_some() && locks.lock(&other).now_or_never().is_some());
        let mut waiting = Box::pin(locks.lock(&one));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(locks.lock(&one).now_or_never().is_none(), "a canceled waiter leaves no lock behind");
        drop(first);
        let second = waiting.await;
        assert!(second.is_some() && locks.lock(&one).now_or_never().is_none());
        assert!(locks.lock(&one).await.is_none(), "waiting times out");
        drop(second);
        drop(locks.lock(&other).await);
        assert_eq!(locks.0.lock().len(), 1, "released locks are removed");
    }
}
