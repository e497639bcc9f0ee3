//! When status says which pods use an image.
//!
//! Whether any pod uses it is said at once, and so is everything else, with the pods as they are then. How many there
//! are, and which, changes with every pod, and is gathered: a rollout of a thousand pods is not a thousand writes.

use std::time::Duration;

use jiff::Timestamp;

use super::{Memory, Observed, Status, time::after};

/// How long pods that come and go are gathered.
const GATHER: Duration = Duration::from_secs(5);
/// How long after a write the next one is that is about pods alone.
const PAUSE: Duration = Duration::from_secs(30);

/// Leaves `status` as it was where it differs in what can wait, and says until when that waits.
pub(super) fn gather(
    observed: &Observed,
    status: &mut Status,
    memory: &mut Memory,
    now: Timestamp,
) -> Option<Timestamp> {
    if *status == observed.status {
        memory.usage_since = None;
        return None;
    }
    let until = can_wait(&observed.status, status).then(|| {
        let since = memory.usage_since.filter(|since| *since <= now).unwrap_or(now);
        memory.usage_since = Some(since);
        let spaced = memory.written_at.filter(|written| *written <= now).map(|at| after(at, PAUSE));
        spaced.into_iter().fold(after(since, GATHER), Timestamp::max)
    });
    match until.filter(|until| *until > now) {
        Some(until) => {
            *status = observed.status.clone();
            Some(until)
        }
        None => {
            (memory.usage_since, memory.written_at) = (None, Some(now));
            None
        }
    }
}

/// Whether nothing else is new than the pods of an image that was used and is, or that has no status yet.
fn can_wait(before: &Status, status: &Status) -> bool {
    let is_new = before.used_by.is_none();
    let generation = if is_new { before.observed_generation } else { status.observed_generation };
    let rest = Status { used_by: before.used_by.clone(), observed_generation: generation, ..status.clone() };
    let is_used = |status: &Status| status.used_by.as_ref().is_some_and(|used| used.count > 0);
    rest == *before && (is_new || is_used(before) == is_used(status))
}
