//! What the outcome of a job means for status, for memory, and for people.

use jiff::Timestamp;

use super::{Ended, Failure, Job, Memory, Occasion, Outcome, Status, Step};
use crate::crd::CachedImagePhase;

/// What follows from an outcome.
#[derive(Default)]
pub(super) struct Accounted {
    pub(super) after: Vec<Step>,
    /// Whether the refresh that was asked for has been had.
    pub(super) cleared: bool,
}

pub(super) fn account(
    ended: Option<&Ended>,
    memory: &mut Memory,
    status: &mut Status,
    now: Timestamp,
) -> Accounted {
    let Some(Ended { job, outcome, .. }) = ended else { return Accounted::default() };
    let mut after = Vec::new();
    match outcome {
        Outcome::Pulled { digest, without } => {
            pulled(memory, status, digest, now);
            after.push(Step::Tell(Occasion::Cached { digest: digest.clone(), without: without.clone() }));
            // Only now: a refresh that fails is still asked for.
            if *job == (Job::Pull { forced: true }) {
                after.push(Step::ClearForce);
                return Accounted { after, cleared: true };
            }
        }
        Outcome::PullFailed(failure) => {
            memory.asked |= failure.not_found;
            after.push(failed(memory, failure, now));
            not_had(status, failure, now);
        }
        Outcome::Checked { digest } => {
            memory.asked = true;
            well(memory);
            asked(status, digest, now);
            memory.moved = status.digest.as_ref() != Some(digest);
            status.up_to_date = Some(!memory.moved);
            if memory.moved {
                status
                    .ready("Outdated", "its registry has another by now, which is to be put into the cache");
            } else {
                in_cache(status);
            }
        }
        Outcome::CheckFailed(failure) => {
            memory.asked |= failure.not_found;
            after.push(failed(memory, failure, now));
            not_had(status, failure, now);
            if failure.not_found {
                // That is an answer, and the tag is checked again when that is due.
                memory.failures = 0;
            }
        }
        Outcome::Complete { digest } => {
            memory.looked_at = Some(now);
            found(memory, status, digest);
        }
        Outcome::Incomplete { what } => {
            memory.looked_at = Some(now);
            if status.says_cached() {
                well(memory);
                status.is_cached = Some(false);
                status.phase = Some(CachedImagePhase::Synchronizing);
                status.ready("Missing", format!("the cache has lost {what}; it is put there again"));
            }
        }
        // The cache waits for its turn, and status for the truth.
        Outcome::VerifyFailed(_) => memory.looked_at = Some(now),
        Outcome::Removed | Outcome::RemoveFailed(_) => {}
    }
    Accounted { after, cleared: false }
}

fn pulled(memory: &mut Memory, status: &mut Status, digest: &str, now: Timestamp) {
    well(memory);
    (memory.moved, memory.asked) = (false, true);
    memory.looked_at = Some(now);
    status.is_cached = Some(true);
    status.digest = Some(digest.to_owned());
    status.last_successful_pull = Some(now);
    status.up_to_date = Some(true);
    asked(status, digest, now);
    in_cache(status);
}

fn in_cache(status: &mut Status) {
    status.phase = Some(CachedImagePhase::Ready);
    status.ready("UpToDate", "the cache has it as its registry had it when that was last asked");
}

/// The cache has it, whoever put it there.
fn found(memory: &mut Memory, status: &mut Status, digest: &str) {
    if status.digest.as_deref() != Some(digest) {
        memory.asked = false;
        status.up_to_date = status.upstream_digest.as_deref().map(|upstream| upstream == digest);
        status.digest = Some(digest.to_owned());
    }
    if !status.says_cached() {
        status.is_cached = Some(true);
        status.phase = Some(CachedImagePhase::Ready);
        status.ready(
            "NotRefreshed",
            "the cache has it, and its registry could not be asked whether it has another",
        );
    } else if status.ready.is_none() {
        in_cache(status);
    } else {
        // Whoever was pulling it is gone, or there is nothing to be pulled any more.
        status.phase = Some(CachedImagePhase::Ready);
    }
}

/// Its registry has it.
fn asked(status: &mut Status, digest: &str, now: Timestamp) {
    status.upstream_digest = Some(digest.to_owned());
    status.available_upstream = Some(true);
    status.last_sync = Some(now);
    status.last_seen_upstream = Some(now);
}

/// Its registry did not give it. What the cache has stays, and is told apart from what it should have.
fn not_had(status: &mut Status, failure: &Failure, now: Timestamp) {
    if failure.not_found {
        status.available_upstream = Some(false);
        status.last_sync = Some(now);
    }
    if status.says_cached() {
        status.phase = Some(CachedImagePhase::Ready);
        status.ready(
            "NotRefreshed",
            format!("the cache has it, and could not refresh it: {}", failure.problem),
        );
    } else {
        status.is_cached = Some(false);
        status.phase = Some(CachedImagePhase::ErrImagePull);
        status.ready("ErrImagePull", failure.problem.clone());
    }
}

fn well(memory: &mut Memory) {
    memory.failures = 0;
    memory.failed_at = None;
    memory.problem = None;
}

/// Remembers a failure. What fails again in the same way is no news.
fn failed(memory: &mut Memory, failure: &Failure, now: Timestamp) -> Step {
    let news = memory.problem.as_ref() != Some(&failure.problem);
    memory.failures = memory.failures.saturating_add(1);
    memory.failed_at = Some(now);
    memory.problem = Some(failure.problem.clone());
    Step::Tell(Occasion::CacheFailed { problem: failure.problem.clone(), news })
}
