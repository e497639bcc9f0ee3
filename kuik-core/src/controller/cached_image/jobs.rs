//! The work that goes on beside: what is running for which object, what it came to, and what is remembered.
//!
//! Invariant: an object has one job at most, and its outcome is kept until a plan has dealt with it. Copies are few at a
//! time and looks many, so that a slow pull holds up no check.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt as _,
    channel::mpsc,
    future::{AbortHandle, Abortable, BoxFuture},
};
use jiff::Timestamp;
use kube_runtime::reflector::ObjectRef;
use tokio::sync::Semaphore;

use super::Clock;
use crate::{
    copy::{CopyError, ImageCopier, SourceImage, Verdict},
    crd::CachedImage,
    plan::{Backoff, Ended, Failure, Job, Memory, Outcome, Running},
};

/// How many jobs that only ask something run at a time.
const LOOKS_AT_A_TIME: usize = 8;
/// How much of an error's text is kept: it goes into status and events.
const MAX_PROBLEM: usize = 1000;
/// What the cache is called among registries.
const CACHE: &str = "";

/// A job, ready to be run.
pub(super) type Task = BoxFuture<'static, ()>;

/// Everything that is running and remembered. Clones are the same.
#[derive(Clone)]
pub(super) struct Jobs {
    shared: Arc<Shared>,
}

struct Shared {
    copier: Arc<dyn ImageCopier>,
    clock: Clock,
    copies: Semaphore,
    looks: Semaphore,
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

/// What there is of one object.
#[derive(Default)]
struct Entry {
    uid: String,
    running: Option<(u64, Running, AbortHandle)>,
    outcome: Option<Ended>,
    memory: Memory,
}

/// What a plan wants to know.
pub(super) struct Seen {
    pub(super) job: Option<Running>,
    pub(super) outcome: Option<Ended>,
    pub(super) memory: Memory,
    pub(super) registry_free_at: Option<Timestamp>,
    pub(super) cache_free_at: Option<Timestamp>,
}

impl Jobs {
    /// Nothing is running. Tasks go to `tasks`, to be run, and objects to plan for again to `changed`.
    pub(super) fn new(
        copier: Arc<dyn ImageCopier>,
        clock: Clock,
        copies: usize,
        tasks: mpsc::UnboundedSender<Task>,
        changed: mpsc::UnboundedSender<ObjectRef<CachedImage>>,
    ) -> Self {
        let (copies, looks) = (Semaphore::new(copies.max(1)), Semaphore::new(LOOKS_AT_A_TIME));
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { copier, clock, copies, looks, state, tasks, changed }) }
    }

    /// What there is of an object. One of the same name that was there before is forgotten.
    pub(super) fn see(&self, name: &str, uid: &str, registry: Option<&str>, now: Timestamp) -> Seen {
        let mut state = self.shared.state();
        let free =
            |state: &State, key: &str| state.backoffs.get(key).and_then(|backoff| backoff.free_at(now));
        let registry_free_at = registry.and_then(|registry| free(&state, registry));
        let cache_free_at = free(&state, CACHE);
        let entry = state.entries.entry(name.to_owned()).or_default();
        if entry.uid != uid {
            if let Some((_, _, abort)) = entry.running.take() {
                abort.abort();
            }
            *entry = Entry { uid: uid.to_owned(), ..Entry::default() };
        }
        Seen {
            job: entry.running.as_ref().map(|(_, running, _)| running.clone()),
            outcome: entry.outcome.clone(),
            memory: entry.memory.clone(),
            registry_free_at,
            cache_free_at,
        }
    }

    /// Remembers this of an object, and that its outcome was dealt with.
    pub(super) fn remember(&self, name: &str, dealt_with: Option<&Ended>, memory: Memory) {
        let mut state = self.shared.state();
        if let Some(entry) = state.entries.get_mut(name) {
            entry.memory = memory;
            if entry.outcome.as_ref() == dealt_with {
                entry.outcome = None;
            }
        }
    }

    /// Forgets an object that is no more.
    pub(super) fn forget(&self, name: &str) {
        self.abandon(name);
        self.shared.state().entries.remove(name);
    }

    /// Abandons the job of an object.
    pub(super) fn abandon(&self, name: &str) {
        let mut state = self.shared.state();
        let running = state.entries.get_mut(name).and_then(|entry| entry.running.take());
        if let Some((_, _, abort)) = running {
            abort.abort();
        }
    }

    /// Starts a job for an object whose normalised reference is `reference`.
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
        let running = Running { job, image: reference.to_owned(), since, begun: false };
        entry.running = Some((id, running, abort));
        entry.outcome = None;
        drop(state);
        let (shared, name, reference) = (self.shared.clone(), name.to_owned(), reference.to_owned());
        let task = async move {
            let turns = if matches!(job, Job::Pull { .. }) { &shared.copies } else { &shared.looks };
            // The semaphore is never closed.
            let Ok(_turn) = turns.acquire().await else { return };
            shared.begun(&name, id);
            // A copier that panics has failed, and the image is tried again.
            let outcome = AssertUnwindSafe(shared.run(job, &image)).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_| panicked(job));
            shared.ended(&name, id, Ended { job, image: reference, outcome });
        };
        let task = Abortable::new(task, registration);
        // Where nobody runs tasks any more, the reconciler has ended.
        let _ = self.shared.tasks.unbounded_send(Box::pin(async move {
            let _ = task.await;
        }));
    }

    /// Removes an image's tag, where it is not needed when its turn comes. Where that fails the tag stays, which is said.
    pub(super) fn let_go(&self, image: SourceImage, is_needed: impl Fn() -> bool + Send + 'static) {
        let shared = self.shared.clone();
        let _ = self.shared.tasks.unbounded_send(Box::pin(async move {
            let Ok(_turn) = shared.looks.acquire().await else { return };
            if is_needed() {
                return;
            }
            if let Err(error) = shared.noted_of_cache(shared.copier.remove(&image).await) {
                let problem = error.chain();
                tracing::warn!(%image, %problem, "the cache keeps a tag that nobody needs");
            }
        }));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, job: Job, image: &SourceImage) -> Outcome {
        match job {
            Job::Check => match self.noted(image, self.copier.ask_source(image).await) {
                Ok(digest) => Outcome::Checked { digest: digest.encoded().to_owned() },
                Err(error) => Outcome::CheckFailed(failure(&error)),
            },
            Job::Pull { .. } => match self.noted(image, self.copier.copy(image, &()).await) {
                Ok(copied) => {
                    self.cache_answered();
                    if !copied.without.is_empty() {
                        let without = copied.without.join("; ");
                        tracing::warn!(%image, without, "an image is cached without what refers to it");
                    }
                    let digest = copied.digest.encoded().to_owned();
                    Outcome::Pulled { digest, without: copied.without }
                }
                Err(error) => Outcome::PullFailed(failure(&error)),
            },
            Job::Verify => match self.noted_of_cache(self.copier.verify(image).await) {
                Ok(Verdict::Complete { digest }) => Outcome::Complete { digest: digest.encoded().to_owned() },
                Ok(Verdict::Missing { what }) => Outcome::Incomplete { what },
                Err(error) => Outcome::VerifyFailed(failure(&error)),
            },
            Job::Remove => match self.noted_of_cache(self.copier.remove(image).await) {
                Ok(()) => Outcome::Removed,
                Err(error) => Outcome::RemoveFailed(failure(&error)),
            },
        }
    }

    /// Takes note of how the image's registry, or the cache, has fared.
    fn noted<T>(&self, image: &SourceImage, result: Result<T, CopyError>) -> Result<T, CopyError> {
        let registry = image.repository().registry();
        match &result {
            Err(error) if error.is_of_cache() => return self.noted_of_cache(result),
            Err(error) if error.is_of_registry() => self.failed(registry, error),
            _ => {
                self.state().backoffs.remove(registry);
            }
        }
        result
    }

    fn noted_of_cache<T>(&self, result: Result<T, CopyError>) -> Result<T, CopyError> {
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
        if let Some((_, running, _)) = running.filter(|(known, _, _)| *known == id) {
            running.begun = true;
        }
        drop(state);
        let _ = self.changed.unbounded_send(ObjectRef::new(name));
    }

    fn ended(&self, name: &str, id: u64, ended: Ended) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(name)
            && entry.running.as_ref().is_some_and(|(known, _, _)| *known == id)
        {
            entry.running = None;
            entry.outcome = Some(ended);
        }
        drop(state);
        let _ = self.changed.unbounded_send(ObjectRef::new(name));
    }
}

/// The outcome of a job whose task has panicked; the log has its words.
fn panicked(job: Job) -> Outcome {
    let problem = "an error of this program ended it: its log says where".to_owned();
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
