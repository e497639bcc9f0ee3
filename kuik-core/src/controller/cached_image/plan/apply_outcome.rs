//! Applies the outcome of a job to status and memory, and emits events.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    EventKind, Failure, Job, JobResult, Memory, NotKept, Outcome, Status, Step,
    time::{SKEW, after},
    try_now,
};
use crate::{copy::Room, crd::CachedImagePhase};

/// Reason of the condition while the cache has no room for the image.
pub(super) const CACHE_FULL: &str = "CacheFull";

/// How long an image stays in the cache at least before an earlier loss is forgotten.
const STAYS: Duration = Duration::from_secs(10 * 60);

/// Result of applying an outcome.
#[derive(Default)]
pub(super) struct Applied {
    pub(super) after: Vec<Step>,
    /// Whether the requested refresh is done.
    pub(super) cleared: bool,
}

pub(super) fn apply_outcome(
    result: Option<&JobResult>,
    memory: &mut Memory,
    status: &mut Status,
    now: Timestamp,
) -> Applied {
    let Some(JobResult { job, outcome, .. }) = result else { return Applied::default() };
    let mut after = Vec::new();
    match outcome {
        Outcome::Pulled { digest, skipped, size } => {
            pulled(memory, status, digest, now);
            status.size = known(*size);
            after.push(Step::EmitEvent(EventKind::Cached {
                digest: digest.clone(),
                skipped: skipped.clone(),
            }));
            // Only on success: a failed refresh stays requested.
            if *job == (Job::Pull { forced: true }) {
                after.push(Step::ClearForceUpdate);
                return Applied { after, cleared: true };
            }
        }
        Outcome::PullFailed(failure) => {
            memory.checked |= failure.not_found;
            after.push(record_failure(memory, failure, now));
            pull_failed(status, failure, now);
        }
        Outcome::CacheFull(failure) => {
            after.push(not_kept(memory, &failure.problem, now));
            if status.says_cached() {
                // An older one may be there; a pull-through cache has moved the tag.
                memory.verified_at = None;
                status.phase = Some(CachedImagePhase::Ready);
            } else {
                status.is_cached = Some(false);
                status.phase = Some(CachedImagePhase::ErrImagePull);
            }
            status.ready(CACHE_FULL, failure.problem.clone());
        }
        Outcome::Checked { digest } => {
            memory.checked = true;
            clear_failures(memory);
            upstream_has(status, digest, now);
            memory.outdated = status.digest.as_ref() != Some(digest);
            status.up_to_date = Some(!memory.outdated);
            if memory.outdated {
                status.ready("Outdated", "upstream has a newer digest; re-pulling");
            } else {
                in_cache(status);
            }
        }
        Outcome::CheckFailed(failure) => {
            memory.checked |= failure.not_found;
            after.push(record_failure(memory, failure, now));
            pull_failed(status, failure, now);
            if failure.not_found {
                // A 404 is a definitive answer: the next check is the regular one.
                memory.failures = 0;
            }
        }
        Outcome::Complete { digest, size } => {
            memory.verified_at = Some(now);
            memory.asked = false;
            if memory.not_kept.is_some_and(|lost| has_stayed(lost, now)) {
                memory.not_kept = None;
            }
            found_in_cache(memory, status, digest);
            status.size = known(*size).or(status.size);
        }
        Outcome::Incomplete { what, room } => {
            memory.verified_at = Some(now);
            after.extend(missing(memory, status, what, *room, now));
            try_now::is_missing(memory, *room);
        }
        // Retried at the next interval; the status stays as it is.
        Outcome::VerifyFailed(_) => memory.verified_at = Some(now),
        Outcome::Removed | Outcome::RemoveFailed(_) => {}
    }
    Applied { after, cleared: false }
}

/// The image is missing from the cache. It is pulled again at once if the cache has room, or at its first loss.
fn missing(memory: &mut Memory, status: &mut Status, what: &str, room: Room, now: Timestamp) -> Option<Step> {
    if room == Room::Free {
        memory.not_kept = None;
    }
    if !status.says_cached() {
        return None;
    }
    clear_failures(memory);
    status.is_cached = Some(false);
    status.size = None;
    match room {
        Room::Full => {
            status.phase = Some(CachedImagePhase::ErrImagePull);
            let problem = format!("{what} is missing from the cache, which has no room for the image");
            status.ready(CACHE_FULL, problem.clone());
            return Some(not_kept(memory, &problem, now));
        }
        Room::Unknown => {
            let count = memory.not_kept.map_or(0, |lost| lost.count.saturating_add(1));
            memory.not_kept = Some(NotKept { full: false, count, at: now });
        }
        Room::Free => {}
    }
    status.phase = Some(CachedImagePhase::Synchronizing);
    status.ready("Missing", format!("{what} is missing from the cache; re-pulling"));
    None
}

/// The cache has no room for the image. Only space that comes free, or time, resets the backoff.
fn not_kept(memory: &mut Memory, problem: &str, now: Timestamp) -> Step {
    clear_failures(memory);
    let count = memory.not_kept.map_or(1, |lost| lost.count.saturating_add(1));
    memory.not_kept = Some(NotKept { full: true, count, at: now });
    Step::EmitEvent(EventKind::CacheFull { problem: problem.to_owned(), is_new: count == 1 })
}

/// Returns whether an image that was lost has been in the cache for so long that its next loss is another one.
fn has_stayed(lost: NotKept, now: Timestamp) -> bool {
    let long = lost.delay("").saturating_mul(2).max(STAYS);
    now >= after(lost.at, long) || lost.at > after(now, SKEW)
}

fn known(size: u64) -> Option<u64> {
    (size > 0).then_some(size)
}

fn pulled(memory: &mut Memory, status: &mut Status, digest: &str, now: Timestamp) {
    clear_failures(memory);
    (memory.outdated, memory.checked) = (false, true);
    memory.verified_at = Some(now);
    status.is_cached = Some(true);
    status.digest = Some(digest.to_owned());
    status.last_successful_pull = Some(now);
    status.up_to_date = Some(true);
    upstream_has(status, digest, now);
    in_cache(status);
}

fn in_cache(status: &mut Status) {
    status.phase = Some(CachedImagePhase::Ready);
    status.ready("UpToDate", "cached digest matches upstream as of the last check");
}

/// The image is in the cache, possibly put there by another writer.
fn found_in_cache(memory: &mut Memory, status: &mut Status, digest: &str) {
    if status.digest.as_deref() != Some(digest) {
        memory.checked = false;
        status.size = None;
        status.up_to_date = status.upstream_digest.as_deref().map(|upstream| upstream == digest);
        status.digest = Some(digest.to_owned());
    }
    if !status.says_cached() {
        status.is_cached = Some(true);
        status.phase = Some(CachedImagePhase::Ready);
        status.ready("NotRefreshed", "image is cached; upstream could not be checked for a newer digest");
    } else if status.ready.is_none() {
        in_cache(status);
    } else {
        // The process that was pulling is gone, or nothing is left to pull.
        status.phase = Some(CachedImagePhase::Ready);
    }
}

/// The registry returned this digest.
fn upstream_has(status: &mut Status, digest: &str, now: Timestamp) {
    status.upstream_digest = Some(digest.to_owned());
    status.available_upstream = Some(true);
    status.last_sync = Some(now);
    status.last_seen_upstream = Some(now);
}

/// The registry did not return the image. A cached copy stays, and the status says that it was not refreshed.
fn pull_failed(status: &mut Status, failure: &Failure, now: Timestamp) {
    if failure.not_found {
        status.available_upstream = Some(false);
        status.last_sync = Some(now);
    }
    if status.says_cached() {
        status.phase = Some(CachedImagePhase::Ready);
        status.ready("NotRefreshed", format!("image is cached; refresh failed: {}", failure.problem));
    } else {
        status.is_cached = Some(false);
        status.phase = Some(CachedImagePhase::ErrImagePull);
        status.ready("ErrImagePull", failure.problem.clone());
    }
}

fn clear_failures(memory: &mut Memory) {
    memory.failures = 0;
    memory.failed_at = None;
    memory.problem = None;
}

/// Records a failure. Repeating the same problem is not new.
fn record_failure(memory: &mut Memory, failure: &Failure, now: Timestamp) -> Step {
    let is_new = memory.problem.as_ref() != Some(&failure.problem);
    memory.failures = memory.failures.saturating_add(1);
    memory.failed_at = Some(now);
    memory.problem = Some(failure.problem.clone());
    Step::EmitEvent(EventKind::CacheFailed { problem: failure.problem.clone(), is_new })
}
