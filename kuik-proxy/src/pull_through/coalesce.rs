//! Single-flight execution: concurrent requests for the same key share one piece of work.
//!
//! The work runs as its own task: the first caller may disconnect without stopping it for the others.

use std::{collections::HashMap, fmt, future::Future, hash::Hash, sync::Arc};

use futures::{FutureExt as _, future::BoxFuture, future::Shared};
use kuik_core::content::{SourceError, SourceErrorKind};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

type Outcome<V> = Shared<BoxFuture<'static, Result<V, SourceError>>>;

/// Running work by key.
pub(super) struct SingleFlight<K, V> {
    running: Arc<Mutex<HashMap<K, Outcome<V>>>>,
    tasks: TaskTracker,
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { running: Arc::default(), tasks }
    }

    /// Returns the outcome of the running work for `key`, or starts `work`.
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
        let mut running = self.running.lock();
        if let Some(outcome) = running.get(&key) {
            return outcome.clone();
        }
        let (work, running_too, key_too) = (work(), self.running.clone(), key.clone());
        let task = self.tasks.spawn(async move {
            // Created inside the task: a runtime that is shutting down drops the task at once, and dropping this must
            // not wait for the lock that is held now.
            let _done = Done { running: running_too, key: key_too };
            work.await
        });
        let outcome = task
            .map(|ended| {
                ended.unwrap_or_else(|error| {
                    let attempted = "wait for a shared request: it was abandoned";
                    Err(SourceError::caused_by(SourceErrorKind::Unavailable, attempted, error))
                })
            })
            .boxed()
            .shared();
        running.insert(key, outcome.clone());
        outcome
    }
}

/// Removes the key when the work ends for any reason: the next caller starts new work.
struct Done<K: Eq + Hash, V> {
    running: Arc<Mutex<HashMap<K, Outcome<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Done<K, V> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.lock().len();
        f.debug_struct("SingleFlight").field("running", &running).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn work_runs_once_even_if_the_first_caller_disconnects() {
        let flights = Arc::new(SingleFlight::<&str, u32>::new(TaskTracker::new()));
        let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let ask = |flights: Arc<SingleFlight<&'static str, u32>>| {
            let (runs, gate) = (runs.clone(), gate.clone());
            tokio::spawn(async move {
                flights
                    .run("key", || async move {
                        runs.fetch_add(1, Ordering::SeqCst);
                        let _permit = gate.acquire().await;
                        Ok(7)
                    })
                    .await
            })
        };
        let first = ask(flights.clone());
        while runs.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        let others: Vec<_> = (0..10).map(|_| ask(flights.clone())).collect();
        tokio::task::yield_now().await;
        gate.add_permits(1);
        for other in others {
            assert_eq!(other.await.unwrap().unwrap(), 7);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(flights.running.lock().is_empty());
    }
}
