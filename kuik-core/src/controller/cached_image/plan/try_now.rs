//! Verification and refresh on request: annotations of the object.
//!
//! Any changed annotation has the image verified at once; if it is missing, it is pulled without waiting for its own
//! backoff. `forceUpdate` does that without a verification, and for a cached image too. The backoff of the registry, its
//! rate limit included, and that of the cache always apply.

use super::{Memory, Observed};
use crate::copy::Room;

/// Remembers the annotations, and what a change of them asks for.
pub(super) fn observe(observed: &Observed, memory: &mut Memory) {
    let has_changed = memory.annotations.is_some_and(|known| known != observed.annotations);
    let is_new_force = observed.force_update && !memory.forced;
    memory.asked |= has_changed;
    memory.ignore_backoff |= is_new_force || (has_changed && observed.force_update);
    memory.annotations = Some(observed.annotations);
    memory.forced = observed.force_update;
}

/// A verification found the image missing. If it was asked for, so is the pull, unless it would be in vain.
pub(super) fn is_missing(memory: &mut Memory, room: Room) {
    memory.ignore_backoff |= std::mem::take(&mut memory.asked) && room != Room::Full;
}

/// A verification failed. It is repeated when the backoff of the cache ends; without one, a repetition would fail again.
pub(super) fn cannot_be_verified(observed: &Observed, memory: &mut Memory) {
    memory.asked &= observed.cache_retry_at.is_some();
}

/// A pull starts: all that was asked for is on its way.
pub(super) fn pull_starts(memory: &mut Memory) {
    (memory.asked, memory.ignore_backoff) = (false, false);
}
