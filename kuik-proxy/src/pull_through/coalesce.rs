//! One piece of work for everyone who asks for the same thing at the same moment.
//!
//! The work runs as a task of its own: whoever asked first may leave without stopping it for the others.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt as _, future::BoxFuture, future::Shared};
use kuik_core::content::{SourceError, SourceErrorKind};
use tokio_util::task::TaskTracker;

type Outcome<V> = Shared<BoxFuture<'static, Result<V, SourceError>>>;

/// Work in progress, by what it is for.
pub(super) struct Coalesced<K, V> {
    running: Arc<Mutex<HashMap<K, Outcome<V>>>>,
    tasks: TaskTracker,
}

impl<K, V> Coalesced<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { running: Arc::default(), tasks }
    }

    /// The outcome of the work for `key` that is running, or of `work`, which is then started.
    pub(super) async fn run<F>(&self, key: K, work: impl FnOnce() -> F + Send) -> Result<V, SourceError>
    where
        F: Future<Output = Result<V, SourceError>> + Send + 'static,
    {
        self.join_or_start(key, work).await
    }

    fn join_or_start<F>(&self, key: K, work: impl FnOnce() -> F) -> Outcome<V>
    where
        F: Future<Output = Result<V, SourceError>> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = running.get(&key) {
            return outcome.clone();
        }
        let (work, running_too, key_too) = (work(), self.running.clone(), key.clone());
        let task = self.tasks.spawn(async move {
            // Made here: a runtime that is shutting down drops the task at once, and its end must not wait for the
            // lock that is held now.
            let _done = Done { running: running_too, key: key_too };
            work.await
        });
        let outcome = task
            .map(|ended| {
                ended.unwrap_or_else(|error| {
                    let attempted = "wait for work that others asked for too: it was abandoned";
                    Err(SourceError::caused_by(SourceErrorKind::Unavailable, attempted, error))
                })
            })
            .boxed()
            .shared();
        running.insert(key, outcome.clone());
        outcome
    }
}

/// However the work ends, the next one who asks starts it anew.
struct Done<K: Eq + Hash, V> {
    running: Arc<Mutex<HashMap<K, Outcome<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Done<K, V> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K, V> fmt::Debug for Coalesced<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Coalesced").field("running", &running).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn the_work_is_done_once_even_where_the_first_one_leaves() {
        let coalesced = Arc::new(Coalesced::<&str, u32>::new(TaskTracker::new()));
        let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let ask = |coalesced: Arc<Coalesced<&'static str, u32>>| {
            let (runs, gate) = (runs.clone(), gate.clone());
            tokio::spawn(async move {
                coalesced
                    .run("key", || async move {
                        runs.fetch_add(1, Ordering::SeqCst);
                        let _permit = gate.acquire().await;
                        Ok(7)
                    })
                    .await
            })
        };
        let first = ask(coalesced.clone());
        while runs.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        let others: Vec<_> = (0..10).map(|_| ask(coalesced.clone())).collect();
        tokio::task::yield_now().await;
        gate.add_permits(1);
        for other in others {
            assert_eq!(other.await.unwrap().unwrap(), 7);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(coalesced.running.lock().unwrap().is_empty());
    }
}
