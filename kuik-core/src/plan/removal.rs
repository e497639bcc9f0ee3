//! An object that is being deleted: its tag leaves the cache, and then it may go.

use jiff::Timestamp;

use super::{
    Job, Memory, Observed, Occasion, Outcome, Step,
    backoff::delay,
    identity,
    time::{after, due},
};
use crate::crd::CachedImagePhase;

pub(super) fn plan(observed: &Observed, now: Timestamp) -> Vec<Step> {
    let running = observed.job.as_ref();
    let removing = running.filter(|running| running.job == Job::Remove);
    let mut steps: Vec<Step> =
        (running.is_some() && removing.is_none()).then_some(Step::Abandon).into_iter().collect();
    if !observed.facts.finalizer {
        return steps;
    }
    steps.extend(identity::let_go(observed));
    // The tag is another's too, or there is none: nothing is removed.
    if observed.image.is_none() || observed.others.share_tag {
        steps.extend(removing.map(|_| Step::Abandon));
        steps.push(Step::RemoveFinalizer);
        return steps;
    }
    let mut memory = observed.memory.clone();
    if !memory.removing {
        // What is remembered is of the living image.
        memory = Memory { removing: true, ..Memory::default() };
    }
    match observed.outcome.as_ref().map(|ended| &ended.outcome) {
        Some(Outcome::Removed) => {
            // Told when it is true that it is over: where somebody else was quicker, this is planned again.
            steps.extend([Step::RemoveFinalizer, Step::Tell(Occasion::CleanedUp)]);
            return steps;
        }
        Some(Outcome::RemoveFailed(failure)) => {
            let news = memory.problem.as_ref() != Some(&failure.problem);
            memory.failures = memory.failures.saturating_add(1);
            memory.failed_at = Some(now);
            memory.problem = Some(failure.problem.clone());
            steps.push(Step::Tell(Occasion::CleanupFailed { problem: failure.problem.clone(), news }));
        }
        _ => {}
    }
    let shown_at = removing.map(|running| after(running.since.min(now), observed.settings.show_after));
    steps.extend(show(observed, &memory, shown_at.is_some_and(|at| at <= now)));
    if memory != observed.memory || observed.outcome.is_some() {
        steps.push(Step::Remember(memory.clone()));
    }
    if removing.is_some() {
        steps.extend(shown_at.filter(|&at| at > now).map(Step::WakeAt));
        return steps;
    }
    let own =
        (memory.failures > 0).then(|| due(memory.failed_at, delay(memory.failures, &observed.name), now));
    match own.into_iter().chain(observed.cache_free_at).max().filter(|&free| free > now) {
        Some(free) => steps.push(Step::WakeAt(free)),
        None => {
            steps.extend((memory.failures == 0).then_some(Step::Tell(Occasion::CleaningUp)));
            steps.push(Step::Start(Job::Remove));
        }
    }
    steps
}

/// Status says that the object is going where that takes its time. What is gone at once is not worth a write.
fn show(observed: &Observed, memory: &Memory, lasts: bool) -> Option<Step> {
    if !lasts && memory.failures == 0 {
        return None;
    }
    let mut status = observed.status.clone();
    status.phase = Some(CachedImagePhase::Terminating);
    status.is_cached = Some(false);
    status.observed_generation = observed.generation.or(status.observed_generation);
    status
        .ready("Terminating", memory.problem.as_deref().unwrap_or("its tag is being removed from the cache"));
    (status != observed.status).then(|| Step::SetStatus(Box::new(status)))
}
