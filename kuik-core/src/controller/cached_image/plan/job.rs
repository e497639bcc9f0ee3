//! Job scheduling for an image that is not being deleted, and its status.
//!
//! An outcome is applied first, because it decides what is next: an outdated tag is pulled, and so is content missing
//! from the cache. Then, if no job is running, the first of these that is due is started: a pull, if the image is not
//! cached or a refresh is requested; an upstream check of the tag; a verification of the cache.

use jiff::Timestamp;

use super::{
    EventKind, Job, JobResult, Memory, Naming, NotKept, Observed, Outcome, Refresh, Running, Status, Step,
    apply_outcome::{Applied, CACHE_FULL, apply_outcome},
    backoff::{delay, spread},
    debounce, identity,
    time::{SKEW, after, due, earliest, last_turn},
    try_now,
};
use crate::crd::CachedImagePhase;

/// Steps to carry out and the status to write.
pub(super) struct Work {
    /// Steps before the status is written.
    pub(super) before: Vec<Step>,
    pub(super) status: Status,
    /// Steps after the status is written.
    pub(super) after: Vec<Step>,
    pub(super) wake: Option<Timestamp>,
}

pub(super) fn plan(observed: &Observed, now: Timestamp) -> Work {
    let mut status = observed.status.clone();
    if let Some(usage) = &observed.usage {
        status.used_by = Some(usage.clone());
    }
    status.observed_generation = observed.generation.or(status.observed_generation);
    let Some(image) = &observed.image else { return no_image(observed, status) };

    let mut before = Vec::new();
    let mut running = observed.job.as_ref();
    let mut memory = observed.memory.clone();
    if running.is_some_and(|running| running.image != *image) {
        before.push(Step::Abandon);
        running = None;
    }
    if let Some(untag) = identity::untag(observed) {
        before.push(untag);
        // The object names another image now; its status was about the previous one.
        memory = Memory::default();
        status = Status {
            used_by: status.used_by,
            observed_generation: status.observed_generation,
            ..Status::default()
        };
    }
    if memory.image.is_none() && !status.says_cached() && says_full(&status) {
        // Another process found the cache full. Its backoff is lost, and starts again.
        memory.not_kept = Some(NotKept { full: true, count: 1, at: now });
    }
    memory.image = Some(image.clone());
    try_now::observe(observed, &mut memory);
    status.progress = None;

    let result = observed.outcome.as_ref().filter(|result| result.image == *image);
    let Applied { mut after, cleared } = apply_outcome(result, &mut memory, &mut status, now);
    if let Some(JobResult { outcome: Outcome::VerifyFailed(_), .. }) = result {
        try_now::cannot_be_verified(observed, &mut memory);
    }
    let forced = observed.force_update && !cleared;
    let wake = match running {
        Some(running) => match shown_at(observed, running, now) {
            Some(at) if at <= now => {
                let is_shown = show(running, &memory, &mut status);
                if is_shown && running.begun && !memory.announced {
                    memory.announced = true;
                    after.push(Step::EmitEvent(EventKind::Caching));
                }
                None
            }
            later => later,
        },
        None => match next(observed, &memory, &status, forced, now) {
            Next::Start(job) => {
                memory.announced = false;
                if matches!(job, Job::Pull { .. }) {
                    try_now::pull_starts(&mut memory);
                }
                after.push(Step::Start(job));
                None
            }
            Next::Wait(until) => until,
        },
    };
    let wake = earliest(wake, debounce::gather(observed, &mut status, &mut memory, now));
    if memory != observed.memory || observed.outcome.is_some() {
        after.insert(0, Step::Remember(memory));
    }
    Work { before, status, after, wake }
}

/// Reports an object that names no valid image.
fn no_image(observed: &Observed, mut status: Status) -> Work {
    let problem = match &observed.naming {
        Naming::Invalid { problem } => problem.as_str(),
        _ => "not an image reference",
    };
    let message = format!("{:?} cannot be cached: {problem}", observed.source_image);
    status.is_cached = Some(false);
    status.phase = Some(CachedImagePhase::ErrImagePull);
    status.ready("InvalidReference", message.clone());
    let is_new = status.ready != observed.status.ready;
    let event = is_new.then_some(Step::EmitEvent(EventKind::CacheFailed { problem: message, is_new }));
    let forget = observed.memory.image.is_some().then(|| Step::Remember(Memory::default()));
    Work {
        before: identity::leave(observed).collect(),
        status,
        after: forget.into_iter().chain(event).collect(),
        wake: None,
    }
}

/// Returns whether the status says that the cache is full.
fn says_full(status: &Status) -> bool {
    status.ready.as_ref().is_some_and(|ready| ready.reason == CACHE_FULL)
}

/// Returns when a running job appears in the status: only slow pulls do.
fn shown_at(observed: &Observed, running: &Running, now: Timestamp) -> Option<Timestamp> {
    let shown = matches!(running.job, Job::Pull { .. });
    shown.then(|| after(running.since.min(now), observed.settings.show_after))
}

/// Shows a running pull. A retry shows only its progress: the error of the last attempt stays. Returns whether it is
/// the first attempt.
fn show(running: &Running, memory: &Memory, status: &mut Status) -> bool {
    status.progress = running.transfer;
    if memory.failures > 0 || memory.not_kept.is_some() {
        return false;
    }
    let (phase, message) = if running.begun {
        (CachedImagePhase::Pulling, "pulling the image into the cache")
    } else {
        (CachedImagePhase::Synchronizing, "waiting for a free pull slot")
    };
    status.phase = Some(phase);
    if !status.says_cached() {
        status.is_cached = Some(false);
        status.ready("Pulling", message);
    }
    true
}

enum Next {
    Start(Job),
    Wait(Option<Timestamp>),
}

/// Returns the first job that is due, or when one will be.
fn next(observed: &Observed, memory: &Memory, status: &Status, forced: bool, now: Timestamp) -> Next {
    let own =
        (memory.failures > 0).then(|| due(memory.failed_at, delay(memory.failures, &observed.name), now));
    let full = memory.not_kept.map(|lost| due(Some(lost.at), lost.delay(&observed.name), now));
    let (registry, cache) = (observed.registry_retry_at, observed.cache_retry_at);
    let cached = status.says_cached();
    let latest = |times: [Option<Timestamp>; 4]| times.into_iter().flatten().fold(now, Timestamp::max);
    let (own_pull, full) = if memory.ignore_backoff { (None, None) } else { (own, full) };
    let pull = (!cached || forced || memory.outdated)
        .then(|| (Job::Pull { forced }, latest([own_pull, full, registry, cache])));
    let check = refresh(observed, memory, status, now)
        .filter(|_| pull.is_none())
        .map(|at| (Job::Check, at.max(latest([own, registry, None, None]))));
    let interval = spread(observed.settings.verify_interval, &observed.name);
    // While the pull is backed off, the cache may have the image anyway: proxies pull through it.
    let verifiable = cached || pull.is_some_and(|(_, at)| at > now);
    let verify_at = if memory.asked { now } else { due(memory.verified_at, interval, now) };
    let verify = verifiable.then(|| (Job::Verify, cache.into_iter().fold(verify_at, Timestamp::max)));
    let jobs = [pull, check, verify];
    match jobs.iter().flatten().find(|(_, at)| *at <= now) {
        Some((job, _)) => Next::Start(*job),
        None => Next::Wait(jobs.iter().flatten().fold(None, |wake, (_, at)| earliest(wake, *at))),
    }
}

/// Returns when to check the tag; digests are never checked.
///
/// A tag known to be outdated is checked at once and then pulled: the process that found out may be gone.
fn refresh(observed: &Observed, memory: &Memory, status: &Status, now: Timestamp) -> Option<Timestamp> {
    if observed.by_digest || !status.says_cached() {
        return None;
    }
    if status.up_to_date == Some(false) && !memory.checked {
        return Some(now);
    }
    match observed.repository.as_ref()?.refresh {
        // The Repository starts its next interval when all its images are checked. Until then each image is still
        // checked once per interval.
        Refresh::Every { from, interval } => match status.last_sync {
            Some(last) if last <= after(now, SKEW) => {
                let turn = last_turn(from, interval, now);
                Some(if last < turn { turn } else { after(turn, interval) })
            }
            _ => Some(now),
        },
        Refresh::Never => None,
    }
}
