//! Which job is next for a living image, and what status says meanwhile.
//!
//! An outcome is dealt with first, because it decides what is next: a tag that has moved is pulled, and so is what the
//! cache has lost. Then, where no job is running, the first of these that is due is started: a pull where the cache does
//! not have the image, or a refresh is asked for; a check of the tag; a look into the cache.

use jiff::Timestamp;

use super::{
    Job, Memory, Naming, Observed, Occasion, Refresh, Running, Status, Step,
    account::{Accounted, account},
    backoff::{delay, spread},
    identity,
    time::{SKEW, after, due, earliest, last_turn},
    usage,
};
use crate::crd::CachedImagePhase;

/// What is to be done, and what status is to say.
pub(super) struct Work {
    /// What comes before status is written.
    pub(super) before: Vec<Step>,
    pub(super) status: Status,
    /// What comes after it.
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
    if let Some(let_go) = identity::let_go(observed) {
        before.push(let_go);
        // The object stands for another image now, and what it said was about the one before.
        memory = Memory::default();
        status = Status {
            used_by: status.used_by,
            observed_generation: status.observed_generation,
            ..Status::default()
        };
    }
    memory.image = Some(image.clone());

    let ended = observed.outcome.as_ref().filter(|ended| ended.image == *image);
    let Accounted { mut after, cleared } = account(ended, &mut memory, &mut status, now);
    let forced = observed.force_update && !cleared;
    let wake = match running {
        Some(running) => match shown_at(observed, running, &memory, now) {
            Some(at) if at <= now => {
                show(running, &mut status);
                if running.begun && !memory.told {
                    memory.told = true;
                    after.push(Step::Tell(Occasion::Caching));
                }
                None
            }
            later => later,
        },
        None => match next(observed, &memory, &status, forced, now) {
            Next::Start(job) => {
                memory.told = false;
                after.push(Step::Start(job));
                None
            }
            Next::Wait(until) => until,
        },
    };
    let wake = earliest(wake, usage::gather(observed, &mut status, &mut memory, now));
    if memory != observed.memory || observed.outcome.is_some() {
        after.insert(0, Step::Remember(memory));
    }
    Work { before, status, after, wake }
}

/// What is to be done about an object that names no image: to say so.
fn no_image(observed: &Observed, mut status: Status) -> Work {
    let problem = match &observed.naming {
        Naming::Invalid { problem } => problem.as_str(),
        _ => "it names no image",
    };
    let message = format!("{:?} cannot be cached: {problem}", observed.source_image);
    status.is_cached = Some(false);
    status.phase = Some(CachedImagePhase::ErrImagePull);
    status.ready("InvalidReference", message.clone());
    let news = status.ready != observed.status.ready;
    let tell = news.then_some(Step::Tell(Occasion::CacheFailed { problem: message, news }));
    let forget = observed.memory.image.is_some().then(|| Step::Remember(Memory::default()));
    Work {
        before: identity::leave(observed).collect(),
        status,
        after: forget.into_iter().chain(tell).collect(),
        wake: None,
    }
}

/// From when a job is shown: a pull that takes its time. What fails again and again is not shown as going on in between.
fn shown_at(observed: &Observed, running: &Running, memory: &Memory, now: Timestamp) -> Option<Timestamp> {
    let shown = matches!(running.job, Job::Pull { .. }) && memory.failures == 0;
    shown.then(|| after(running.since.min(now), observed.settings.show_after))
}

fn show(running: &Running, status: &mut Status) {
    let (phase, message) = if running.begun {
        (CachedImagePhase::Pulling, "it is being put into the cache")
    } else {
        (CachedImagePhase::Synchronizing, "it waits for others to be put into the cache")
    };
    status.phase = Some(phase);
    if !status.says_cached() {
        status.is_cached = Some(false);
        status.ready("Pulling", message);
    }
}

enum Next {
    Start(Job),
    Wait(Option<Timestamp>),
}

/// The first job that is due, or when one will be.
fn next(observed: &Observed, memory: &Memory, status: &Status, forced: bool, now: Timestamp) -> Next {
    let own = (memory.failures > 0)
        .then(|| due(memory.failed_at, delay(memory.failures, &observed.name), now))
        .into_iter();
    let (registry, cache) = (observed.registry_free_at, observed.cache_free_at);
    let cached = status.says_cached();
    let free = |also: Option<Timestamp>| own.clone().chain(registry).chain(also).fold(now, Timestamp::max);
    let pull = (!cached || forced || memory.moved).then(|| (Job::Pull { forced }, free(cache)));
    let check = refresh(observed, memory, status, now)
        .filter(|_| pull.is_none())
        .map(|at| (Job::Check, at.max(free(None))));
    let interval = spread(observed.settings.verify_interval, &observed.name);
    // While it cannot be pulled, the cache may have it all the same: others pull through it.
    let looked_for = cached || pull.is_some_and(|(_, at)| at > now);
    let look_at = due(memory.looked_at, interval, now);
    let verify = looked_for.then(|| (Job::Verify, cache.into_iter().fold(look_at, Timestamp::max)));
    let jobs = [pull, check, verify];
    match jobs.iter().flatten().find(|(_, at)| *at <= now) {
        Some((job, _)) => Next::Start(*job),
        None => Next::Wait(jobs.iter().flatten().fold(None, |wake, (_, at)| earliest(wake, *at))),
    }
}

/// When the tag is to be checked: a digest never is.
///
/// What is known to be out of date is asked for at once, and then pulled: whoever found that out may be gone.
fn refresh(observed: &Observed, memory: &Memory, status: &Status, now: Timestamp) -> Option<Timestamp> {
    if observed.by_digest || !status.says_cached() {
        return None;
    }
    if status.up_to_date == Some(false) && !memory.asked {
        return Some(now);
    }
    match observed.repository.as_ref()?.refresh {
        // Its repository ends an interval, and begins the next, when all its images have been checked. Until then each of them
        // is checked every so often all the same.
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
