//! Background jobs: running jobs, their results and in-memory state per object.
//!
//! Invariant: an object has at most one job, and its result is kept until a plan has handled it. Copies and checks have
//! separate concurrency limits, so that a slow pull does not delay checks.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use futures::{
    FutureExt as _,
    channel::mpsc,
    future::{AbortHandle, Abortable, BoxFuture},
};
use jiff::Timestamp;
use kube_runtime::reflector::ObjectRef;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;

use super::Clock;
use super::progress::Transferred;
use crate::{
    controller::cached_image::plan::{Backoff, Failure, Job, JobResult, Memory, Outcome, Running},
    copy::{CopyError, ImageCopier, SourceImage, Verdict},
    crd::CachedImage,
};

/// Concurrency limit of all jobs except copies.
const MAX_CONCURRENT_CHECKS: usize = 8;
/// Maximum length of an error message: it goes into status and events.
const MAX_PROBLEM: usize = 1000;
/// Backoff key of the cache; registries use their name.
const CACHE: &str = "";

/// A job, ready to run.
pub(super) type Task = BoxFuture<'static, ()>;

/// All running jobs and in-memory state. Clones share it.
#[derive(Clone)]
pub(super) struct Jobs {
    shared: Arc<Shared>,
}

struct Shared {
    copier: Arc<dyn ImageCopier>,
    clock: Clock,
    copies: Semaphore,
    checks: Semaphore,
    state: Mutex<State>,
    tasks: mpsc::UnboundedSender<Task>,
    changed: mpsc::UnboundedSender<ObjectRef<CachedImage>>,
}

#[derive(Default)]
struct State {
    entries: HashMap<String, Entry>,
    backoffs: HashMap<String, Backoff>,
    next: u64,
}

/// Job and memory of one object.
#[derive(Default)]
struct Entry {
    uid: String,
    running: Option<RunningJob>,
    outcome: Option<JobResult>,
    memory: Memory,
}

/// A job that is queued or runs.
struct RunningJob {
    id: u64,
    running: Running,
    transferred: Arc<Transferred>,
    abort: AbortHandle,
}

/// State of an object's jobs, as input for a plan.
pub(super) struct JobState {
    pub(super) job: Option<Running>,
    pub(super) outcome: Option<JobResult>,
    pub(super) memory: Memory,
    pub(super) registry_retry_at: Option<Timestamp>,
    pub(super) cache_retry_at: Option<Timestamp>,
}

impl Jobs {
    /// Starts with no jobs. Tasks to run are sent to `tasks`, objects to plan again to `changed`.
    pub(super) fn new(
        copier: Arc<dyn ImageCopier>,
        clock: Clock,
        copies: usize,
        tasks: mpsc::UnboundedSender<Task>,
        changed: mpsc::UnboundedSender<ObjectRef<CachedImage>>,
    ) -> Self {
        let (copies, checks) = (Semaphore::new(copies.max(1)), Semaphore::new(MAX_CONCURRENT_CHECKS));
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { copier, clock, copies, checks, state, tasks, changed }) }
    }

    /// Returns the state of an object. Discards the state of an earlier object of the same name.
    pub(super) fn get(&self, name: &str, uid: &str, registry: Option<&str>, now: Timestamp) -> JobState {
        let mut state = self.shared.state();
        let retry_at =
            |state: &State, key: &str| state.backoffs.get(key).and_then(|backoff| backoff.retry_at(now));
        let registry_retry_at = registry.and_then(|registry| retry_at(&state, registry));
        let cache_retry_at = retry_at(&state, CACHE);
        let entry = state.entries.entry(name.to_owned()).or_default();
        if entry.uid != uid {
            if let Some(job) = entry.running.take() {
                job.abort.abort();
            }
            *entry = Entry { uid: uid.to_owned(), ..Entry::default() };
        }
        JobState {
            job: entry
                .running
                .as_ref()
                .map(|job| Running { transfer: job.transferred.get(), ..job.running.clone() }),
            outcome: entry.outcome.clone(),
            memory: entry.memory.clone(),
            registry_retry_at,
            cache_retry_at,
        }
    }

    /// Stores the memory of an object, and discards its outcome if it is `handled`.
    pub(super) fn remember(&self, name: &str, handled: Option<&JobResult>, memory: Memory) {
        let mut state = self.shared.state();
        if let Some(entry) = state.entries.get_mut(name) {
            entry.memory = memory;
            if entry.outcome.as_ref() == handled {
                entry.outcome = None;
            }
        }
    }

    /// Discards the state of a deleted object.
    pub(super) fn forget(&self, name: &str) {
        self.abandon(name);
        self.shared.state().entries.remove(name);
    }

    /// Cancels the job of an object.
    pub(super) fn abandon(&self, name: &str) {
        let mut state = self.shared.state();
        let running = state.entries.get_mut(name).and_then(|entry| entry.running.take());
        if let Some(job) = running {
            job.abort.abort();
        }
    }

    /// Starts a job for an object whose normalized reference is `reference`.
    pub(super) fn start(&self, name: &str, job: Job, image: SourceImage, reference: &str) {
        let (abort, registration) = AbortHandle::new_pair();
        let since = (self.shared.clock)();
        let mut state = self.shared.state();
        state.next += 1;
        let id = state.next;
        let Some(entry) = state.entries.get_mut(name) else { return };
        if entry.running.is_some() {
            return;
        }
        let running = Running { job, image: reference.to_owned(), since, begun: false, transfer: None };
        let transferred = Arc::<Transferred>::default();
        entry.running = Some(RunningJob { id, running, transferred: transferred.clone(), abort });
        entry.outcome = None;
        drop(state);
        let (shared, name, reference) = (self.shared.clone(), name.to_owned(), reference.to_owned());
        let task = async move {
            let semaphore = if matches!(job, Job::Pull { .. }) { &shared.copies } else { &shared.checks };
            // The semaphore is never closed.
            let Ok(_permit) = semaphore.acquire().await else { return };
            shared.begun(&name, id);
            // A panic of the copier counts as a failure, and the job is retried.
            let outcome = AssertUnwindSafe(shared.run(job, &image, &transferred)).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_| panicked(job));
            shared.finished(&name, id, JobResult { job, image: reference, outcome });
        };
        let task = Abortable::new(task, registration);
        // Fails only if the controller has stopped.
        let _ = self.shared.tasks.unbounded_send(Box::pin(async move {
            let _ = task.await;
        }));
    }

    /// Removes an image's tag in the background unless `is_needed` returns true when it runs. A failure is logged, and
    /// the tag stays.
    pub(super) fn untag(&self, image: SourceImage, is_needed: impl Fn() -> bool + Send + 'static) {
        let shared = self.shared.clone();
        let _ = self.shared.tasks.unbounded_send(Box::pin(async move {
            let Ok(_permit) = shared.checks.acquire().await else { return };
            if is_needed() {
                return;
            }
            if let Err(error) = shared.track_cache(shared.copier.remove(&image).await) {
                let problem = error.chain();
                tracing::warn!(%image, %problem, "failed to delete a stale tag from the cache");
            }
        }));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    async fn run(&self, job: Job, image: &SourceImage, transferred: &Transferred) -> Outcome {
        match job {
            Job::Check => match self.track_registry(image, self.copier.resolve_upstream(image).await) {
                Ok(digest) => Outcome::Checked { digest: digest.encoded().to_owned() },
                Err(error) => Outcome::CheckFailed(failure(&error)),
            },
            Job::Pull { .. } => {
                match self.track_registry(image, self.copier.copy(image, transferred).await) {
                    Ok(copied) => {
                        self.cache_answered();
                        if !copied.skipped.is_empty() {
                            let skipped = copied.skipped.join("; ");
                            tracing::warn!(%image, skipped, "cached image without some of its referrers");
                        }
                        let digest = copied.digest.encoded().to_owned();
                        Outcome::Pulled { digest, skipped: copied.skipped, size: copied.size }
                    }
                    Err(error) if error.is_cache_full() => {
                        self.cache_answered();
                        Outcome::CacheFull(failure(&error))
                    }
                    Err(error) => Outcome::PullFailed(failure(&error)),
                }
            }
            Job::Verify => match self.track_cache(self.copier.verify(image).await) {
                Ok(Verdict::Complete { digest, size }) => {
                    Outcome::Complete { digest: digest.encoded().to_owned(), size }
                }
                Ok(Verdict::Missing { what, room }) => Outcome::Incomplete { what, room },
                Err(error) => Outcome::VerifyFailed(failure(&error)),
            },
            Job::Remove => match self.track_cache(self.copier.remove(image).await) {
                Ok(()) => Outcome::Removed,
                Err(error) => Outcome::RemoveFailed(failure(&error)),
            },
        }
    }

    /// Updates the backoff of the image's registry, or of the cache if that failed.
    fn track_registry<T>(&self, image: &SourceImage, result: Result<T, CopyError>) -> Result<T, CopyError> {
        let registry = image.repository().registry();
        match &result {
            Err(error) if error.is_of_cache() => return self.track_cache(result),
            Err(error) if error.is_of_registry() => self.failed(registry, error),
            _ => {
                self.state().backoffs.remove(registry);
            }
        }
        result
    }

    fn track_cache<T>(&self, result: Result<T, CopyError>) -> Result<T, CopyError> {
        match &result {
            Err(error) if error.is_of_registry() => self.failed(CACHE, error),
            _ => self.cache_answered(),
        }
        result
    }

    fn cache_answered(&self) {
        self.state().backoffs.remove(CACHE);
    }

    fn failed(&self, key: &str, error: &CopyError) {
        let retry_after = error.content().and_then(crate::content::SourceError::retry_after);
        let now = (self.clock)();
        let mut state = self.state();
        let backoff = state.backoffs.entry(key.to_owned()).or_default();
        if key == CACHE {
            backoff.cache_failed(retry_after, now);
        } else {
            backoff.failed(key, retry_after, now);
        }
    }

    fn begun(&self, name: &str, id: u64) {
        let mut state = self.state();
        let running = state.entries.get_mut(name).and_then(|entry| entry.running.as_mut());
        if let Some(job) = running.filter(|job| job.id == id) {
            job.running.begun = true;
        }
        drop(state);
        let _ = self.changed.unbounded_send(ObjectRef::new(name));
    }

    fn finished(&self, name: &str, id: u64, result: JobResult) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(name)
            && entry.running.as_ref().is_some_and(|job| job.id == id)
        {
            entry.running = None;
            entry.outcome = Some(result);
        }
        drop(state);
        let _ = self.changed.unbounded_send(ObjectRef::new(name));
    }
}

/// Returns the outcome of a job that panicked. The panic message is in the log.
fn panicked(job: Job) -> Outcome {
    let problem = "internal error: the job panicked, see the controller's log".to_owned();
    let failure = Failure { problem, not_found: false, retry_after: None };
    match job {
        Job::Check => Outcome::CheckFailed(failure),
        Job::Pull { .. } => Outcome::PullFailed(failure),
        Job::Verify => Outcome::VerifyFailed(failure),
        Job::Remove => Outcome::RemoveFailed(failure),
    }
}

fn failure(error: &CopyError) -> Failure {
    let mut problem = error.chain();
    if let Some((end, _)) = problem.char_indices().nth(MAX_PROBLEM) {
        problem.truncate(end);
        problem.push('…');
    }
    let retry_after = error.content().and_then(crate::content::SourceError::retry_after);
    Failure { problem, not_found: error.is_not_found(), retry_after }
}
