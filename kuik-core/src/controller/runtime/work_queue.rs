//! Work queue: deduplicates keys, runs several workers, and retries failures with exponential backoff.
//!
//! Invariants: a key is processed by one worker at a time; a key pushed while it is processed is processed once more
//! afterwards; pushing a queued key is a no-op. So any number of events about one object result in one reconcile after
//! the last of them.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Delay after the first failure. Doubles with each further one, up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// Queue of keys to reconcile. Clones share state.
pub struct WorkQueue<K>(Arc<Shared<K>>);

struct Shared<K> {
    state: Mutex<State<K>>,
    pushed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// The keys in `ready`.
    waiting: HashSet<K>,
    /// The keys being processed, and whether they were pushed meanwhile.
    running: HashMap<K, bool>,
    /// Delayed keys by the time they become ready; `delayed` is the inverse map.
    due: BTreeSet<(Instant, u64)>,
    by_turn: HashMap<u64, K>,
    delayed: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    turn: u64,
}

/// Outcome of a reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done until something changes.
    Done,
    /// Reconcile again after this delay.
    Again(Duration),
    /// Failed: retry with exponential backoff.
    Failed,
    /// Failed: retry no sooner than this delay, which the server asked for.
    FailedUntil(Duration),
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// Queues `key` for the next free worker.
    pub fn push(&self, key: K) {
        self.with(|state| state.push(key));
        self.0.pushed.notify_one();
    }

    /// Queues `key` after `delay`; an earlier request for the key wins.
    pub fn push_after(&self, key: K, delay: Duration) {
        self.with(|state| state.delay(key, Instant::now() + delay));
        self.0.pushed.notify_one();
    }

    /// Returns the number of keys that are ready or being processed.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.with(|state| state.ready.len() + state.running.len())
    }

    /// Runs `workers` concurrent reconciles, until the future is dropped.
    pub async fn work<F, R>(&self, workers: usize, reconcile: F)
    where
        F: Fn(K) -> R,
        R: Future<Output = Outcome>,
    {
        let keys = stream::unfold(self, |queue| async move { Some((queue.next().await, queue)) });
        let done = keys.for_each_concurrent(workers, |key| async {
            // A reconcile dropped before completion puts its key back.
            let running = Running { queue: self, key: Some(key.clone()) };
            let outcome = reconcile(key).await;
            running.end(outcome);
        });
        done.await;
    }

    /// Waits for the next key and marks it as running.
    async fn next(&self) -> K {
        loop {
            let notified = self.0.pushed.notified();
            let (key, due) = self.with(|state| (state.next(Instant::now()), state.next_due()));
            if let Some(key) = key {
                return key;
            }
            match due {
                Some(due) => tokio::select! { () = notified => {}, () = sleep_until(due) => {} },
                None => notified.await,
            }
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State<K>) -> T) -> T {
        change(&mut self.0.state.lock())
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn push(&mut self, key: K) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = true;
        } else if self.waiting.insert(key.clone()) {
            self.forget_delay(&key);
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: K, until: Instant) {
        let earlier = self.delayed.get(&key).is_some_and(|&(due, _)| due <= until);
        if earlier || self.waiting.contains(&key) {
            return;
        }
        self.forget_delay(&key);
        self.turn += 1;
        self.due.insert((until, self.turn));
        self.by_turn.insert(self.turn, key.clone());
        self.delayed.insert(key, (until, self.turn));
    }

    fn forget_delay(&mut self, key: &K) {
        if let Some(entry) = self.delayed.remove(key) {
            self.due.remove(&entry);
            self.by_turn.remove(&entry.1);
        }
    }

    fn next(&mut self, now: Instant) -> Option<K> {
        while let Some(&(due, turn)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, turn));
            if let Some(key) = self.by_turn.remove(&turn) {
                self.delayed.remove(&key);
                self.push(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone(), false);
        Some(key)
    }

    fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Completes the reconcile of `key`.
    fn end(&mut self, key: K, outcome: Outcome, now: Instant) {
        let again = self.running.remove(&key).unwrap_or_default();
        let delay = match outcome {
            Outcome::Done | Outcome::Again(_) => {
                self.failures.remove(&key);
                if let Outcome::Again(delay) = outcome { Some(delay) } else { None }
            }
            Outcome::Failed | Outcome::FailedUntil(_) => {
                let failures = self.failures.entry(key.clone()).or_insert(0);
                *failures = failures.saturating_add(1);
                let least = if let Outcome::FailedUntil(least) = outcome { least } else { Duration::ZERO };
                Some(backoff(&key, *failures).max(least))
            }
        };
        match delay {
            // A push meanwhile is processed at once; after a failure, after the delay.
            _ if again && !matches!(outcome, Outcome::Failed | Outcome::FailedUntil(_)) => self.push(key),
            Some(delay) => self.delay(key, now + delay),
            None => {}
        }
    }
}

/// Returns the delay after this many failures: doubled each time, plus per-key jitter of up to a quarter, so that keys
/// that failed together are not retried together.
fn backoff(key: &impl Hash, failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let delay = FIRST_BACKOFF.saturating_mul(doubled).min(LONGEST_BACKOFF);
    let mut hasher = DefaultHasher::new();
    (key, failures).hash(&mut hasher);
    let share = u32::try_from(hasher.finish() % 250).unwrap_or_default();
    delay + delay / 1000 * share
}

struct Running<'a, K: Clone + Eq + Hash> {
    queue: &'a WorkQueue<K>,
    key: Option<K>,
}

impl<K: Clone + Eq + Hash> Running<'_, K> {
    fn end(mut self, outcome: Outcome) {
        if let Some(key) = self.key.take() {
            self.queue.with(|state| state.end(key, outcome, Instant::now()));
            self.queue.0.pushed.notify_one();
        }
    }
}

impl<K: Clone + Eq + Hash> Drop for Running<'_, K> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.queue.with(|state| {
                state.running.remove(&key);
                state.push(key);
            });
        }
    }
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for WorkQueue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            running: HashMap::new(),
            due: BTreeSet::new(),
            by_turn: HashMap::new(),
            delayed: HashMap::new(),
            failures: HashMap::new(),
            turn: 0,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), pushed: Notify::new() }))
    }
}

impl<K> fmt::Debug for WorkQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueue").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::{sleep, timeout};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn repeated_push_is_processed_once() {
        let queue = WorkQueue::default();
        for _ in 0..10 {
            queue.push("a");
            queue.push("b");
        }
        let seen = RefCell::new(Vec::new());
        let work = queue.work(2, async |key| {
            seen.borrow_mut().push(key);
            Outcome::Done
        });
        assert!(timeout(LONG, work).await.is_err());
        assert_eq!(*seen.borrow(), ["a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn push_while_running_reprocesses_once_and_never_concurrently() {
        let queue = WorkQueue::default();
        queue.push(1);
        let (runs, at_once) = (Cell::new(0), Cell::new(0));
        let work = queue.work(8, async |key| {
            assert_eq!(at_once.replace(1), 0);
            runs.set(runs.get() + 1);
            if runs.get() == 1 {
                queue.push(key);
                queue.push(key);
            }
            sleep(Duration::from_secs(1)).await;
            at_once.set(0);
            Outcome::Done
        });
        assert!(timeout(LONG, work).await.is_err());
        assert_eq!(runs.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_retried_with_exponential_backoff() {
        let queue = WorkQueue::default();
        queue.push("key");
        let (start, times) = (Instant::now(), RefCell::new(Vec::new()));
        let work = queue.work(1, async |_| {
            times.borrow_mut().push(start.elapsed().as_secs());
            match times.borrow().len() {
                1 | 2 => Outcome::Failed,
                3 => Outcome::FailedUntil(Duration::from_secs(60)),
                4 => Outcome::Again(Duration::from_secs(100)),
                _ => Outcome::Done,
            }
        });
        assert!(timeout(LONG, work).await.is_err());
        let times = times.borrow();
        assert!((1..=2).contains(&times[1]) && (3..=4).contains(&times[2]), "{times:?}");
        assert!((63..=65).contains(&times[3]) && (163..=165).contains(&times[4]), "{times:?}");
        assert_eq!(times.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn push_overrides_delay_and_earliest_delay_wins() {
        let queue = WorkQueue::default();
        let seconds = Duration::from_secs;
        queue.push_after("a", seconds(50));
        queue.push_after("a", seconds(20));
        queue.push_after("a", seconds(90));
        queue.push_after("b", seconds(10));
        queue.push("b");
        let (start, times) = (Instant::now(), RefCell::new(Vec::new()));
        let work = queue.work(1, async |key| {
            times.borrow_mut().push((key, start.elapsed().as_secs()));
            Outcome::Done
        });
        assert!(timeout(LONG, work).await.is_err());
        assert_eq!(*times.borrow(), [("b", 0), ("a", 20)]);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_work_is_queued_again() {
        let queue = WorkQueue::default();
        queue.push("a");
        let stuck = queue.work(1, async |_| std::future::pending().await);
        assert!(timeout(LONG, stuck).await.is_err());
        let seen = Cell::new(0);
        let work = queue.work(1, async |_| {
            seen.set(seen.get() + 1);
            Outcome::Done
        });
        assert!(timeout(LONG, work).await.is_err());
        assert_eq!(seen.get(), 1);
    }

    #[test]
    fn backoff_is_bounded() {
        for failures in [1, 2, 9, 10, 33, u32::MAX] {
            assert!(backoff(&"key", failures) <= LONGEST_BACKOFF * 5 / 4);
        }
        assert!(backoff(&"key", 2) >= FIRST_BACKOFF * 2);
    }
}
