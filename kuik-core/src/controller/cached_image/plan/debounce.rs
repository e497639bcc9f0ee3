//! Debouncing of `status.usedBy` and `status.progress`.
//!
//! Whether any pod uses the image is written at once, and so is any other change, together with the current pods. The
//! count and the names change with every pod and are debounced: a rollout of a thousand pods is not a thousand writes.
//! While pods keep coming, the pause between two such writes doubles. Progress is written every few seconds, and that a
//! pull no longer waits for a slot is part of it.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Memory, Observed, Status,
    time::{after, earliest},
};
use crate::crd::CachedImagePhase;

/// Debounce interval of pod changes.
const GATHER: Duration = Duration::from_secs(5);
/// Minimum time between a write and the next one that concerns only pods, and its maximum after several of these.
const PAUSE: Duration = Duration::from_secs(30);
const MAX_PAUSE: Duration = Duration::from_secs(120);
/// Minimum time between two writes of the progress of a pull.
const PROGRESS: Duration = Duration::from_secs(5);

/// If only debounced fields changed, restores `status` and returns when to write it.
pub(super) fn gather(
    observed: &Observed,
    status: &mut Status,
    memory: &mut Memory,
    now: Timestamp,
) -> Option<Timestamp> {
    // Its bytes change without notice.
    let next_progress = status.progress.map(|_| after(now, PROGRESS));
    if *status == observed.status {
        memory.usage_since = None;
        return next_progress;
    }
    let written = memory.written_at.filter(|written| *written <= now);
    let (pods, progress) = changes(&observed.status, status);
    let is_debounced = pods == Change::Slow || (pods == Change::None && progress == Change::Slow);
    let until = is_debounced.then(|| {
        let pods = (pods == Change::Slow).then(|| {
            let since = memory.usage_since.filter(|since| *since <= now).unwrap_or(now);
            memory.usage_since = Some(since);
            let pause =
                PAUSE.saturating_mul(1 << memory.usage_writes.saturating_sub(1).min(8)).min(MAX_PAUSE);
            written.map(|at| after(at, pause)).into_iter().fold(after(since, GATHER), Timestamp::max)
        });
        let progress = (progress == Change::Slow).then(|| written.map_or(now, |at| after(at, PROGRESS)));
        earliest(pods, progress).unwrap_or(now)
    });
    match until {
        Some(until) if until > now => {
            *status = observed.status.clone();
            Some(until)
        }
        _ => {
            let is_of_pods_only = until.is_some() && pods == Change::Slow && progress == Change::None;
            memory.usage_writes = if is_of_pods_only { memory.usage_writes.saturating_add(1) } else { 0 };
            (memory.usage_since, memory.written_at) = (None, Some(now));
            next_progress
        }
    }
}

/// How a part of the status changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// It can wait.
    Slow,
    /// It is to be written at once.
    Urgent,
}

/// Returns how the pods and the progress changed. Everything else, and whether the image is used at all, is urgent.
fn changes(before: &Status, status: &Status) -> (Change, Change) {
    let is_new = before.used_by.is_none();
    let generation = if is_new { before.observed_generation } else { status.observed_generation };
    let continues = is_pulling(before) && is_pulling(status);
    let shown = if continues { before } else { status };
    let rest = Status {
        used_by: before.used_by.clone(),
        observed_generation: generation,
        progress: before.progress,
        phase: shown.phase,
        ready: shown.ready.clone(),
        ..status.clone()
    };
    let is_used = |status: &Status| status.used_by.as_ref().is_some_and(|used| used.count > 0);
    if rest != *before || !(is_new || is_used(before) == is_used(status)) {
        return (Change::Urgent, Change::Urgent);
    }
    let slow = |differs: bool| if differs { Change::Slow } else { Change::None };
    let pods = status.used_by != before.used_by || status.observed_generation != before.observed_generation;
    let progress =
        status.progress != before.progress || status.phase != before.phase || status.ready != before.ready;
    (slow(pods), slow(progress))
}

/// Whether a status shows a pull that waits or runs.
fn is_pulling(status: &Status) -> bool {
    matches!(status.phase, Some(CachedImagePhase::Synchronizing | CachedImagePhase::Pulling))
}
