//! Finalizer: removes the tag from the cache, then the finalizer from the deleted object.

use jiff::Timestamp;

use super::{
    EventKind, Job, Memory, Observed, Outcome, Step,
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
    if !observed.metadata.finalizer {
        return steps;
    }
    steps.extend(identity::untag(observed));
    // No valid image, or another object uses the tag: nothing to remove.
    if observed.image.is_none() || observed.siblings.share_tag {
        steps.extend(removing.map(|_| Step::Abandon));
        steps.push(Step::RemoveFinalizer);
        return steps;
    }
    let mut memory = observed.memory.clone();
    if !memory.removing {
        // Discard memory from before the deletion.
        memory = Memory { removing: true, ..Memory::default() };
    }
    match observed.outcome.as_ref().map(|result| &result.outcome) {
        Some(Outcome::Removed) => {
            // The event follows the write: after a conflict, this is planned again.
            steps.extend([Step::RemoveFinalizer, Step::EmitEvent(EventKind::CleanedUp)]);
            return steps;
        }
        Some(Outcome::RemoveFailed(failure)) => {
            let is_new = memory.problem.as_ref() != Some(&failure.problem);
            memory.failures = memory.failures.saturating_add(1);
            memory.failed_at = Some(now);
            memory.problem = Some(failure.problem.clone());
            steps
                .push(Step::EmitEvent(EventKind::CleanupFailed { problem: failure.problem.clone(), is_new }));
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
    match own.into_iter().chain(observed.cache_retry_at).max().filter(|&free| free > now) {
        Some(free) => steps.push(Step::WakeAt(free)),
        None => {
            steps.extend((memory.failures == 0).then_some(Step::EmitEvent(EventKind::CleaningUp)));
            steps.push(Step::Start(Job::Remove));
        }
    }
    steps
}

/// Reports a slow or failed removal in the status. A quick one is not worth a write.
fn show(observed: &Observed, memory: &Memory, lasts: bool) -> Option<Step> {
    if !lasts && memory.failures == 0 {
        return None;
    }
    let mut status = observed.status.clone();
    status.phase = Some(CachedImagePhase::Terminating);
    status.is_cached = Some(false);
    status.observed_generation = observed.generation.or(status.observed_generation);
    status.ready("Terminating", memory.problem.as_deref().unwrap_or("removing the tag from the cache"));
    (status != observed.status).then(|| Step::SetStatus(Box::new(status)))
}
