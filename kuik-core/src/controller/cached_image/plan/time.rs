//! Time arithmetic that tolerates clock skew.
//!
//! Invariant: a timestamp in the future never blocks work. It was written with another clock, so the work is due now.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Maximum tolerated clock skew.
pub(crate) const SKEW: Duration = Duration::from_secs(5 * 60);

/// Returns `at + delay`, saturating.
pub(super) fn after(at: Timestamp, delay: Duration) -> Timestamp {
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// Returns when periodic work is due that was `last` done at that time: now if `last` is further in the future than
/// [`SKEW`].
pub(super) fn due(last: Option<Timestamp>, interval: Duration, now: Timestamp) -> Timestamp {
    match last {
        Some(last) if last <= after(now, SKEW) => after(last, interval),
        _ => now,
    }
}

/// Returns the latest of `from`, `from + interval`, `from + 2 * interval`, … that is not after `now`; `from` if none
/// is.
pub(super) fn last_turn(from: Timestamp, interval: Duration, now: Timestamp) -> Timestamp {
    let passed = Duration::try_from(now.duration_since(from)).unwrap_or_default();
    let turns = passed.as_nanos().checked_div(interval.as_nanos()).unwrap_or_default();
    after(from, interval.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX)))
}

/// Returns the earlier of two optional times.
pub(super) fn earliest(
    one: impl Into<Option<Timestamp>>,
    other: impl Into<Option<Timestamp>>,
) -> Option<Timestamp> {
    match (one.into(), other.into()) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn last_turn_is_aligned_to_the_interval() {
        let hour = Duration::from_secs(3600);
        for (now, turn) in [(0, 7200), (7200, 7200), (10_799, 7200), (10_800, 10_800), (7_207_300, 7_207_200)]
        {
            assert_eq!(last_turn(at(7200), hour, at(now)), at(turn), "{now}");
        }
        assert_eq!(last_turn(at(7200), Duration::ZERO, at(9000)), at(7200));
    }

    #[test]
    fn due_is_now_if_last_is_in_the_future() {
        let (now, hour) = (at(1_000_000), Duration::from_secs(3600));
        assert_eq!(due(None, hour, now), now);
        assert_eq!(due(Some(at(999_999)), hour, now), at(1_003_599));
        assert_eq!(due(Some(at(1_000_200)), hour, now), at(1_003_800));
        assert_eq!(due(Some(at(1_000_400)), hour, now), now);
        assert_eq!(after(Timestamp::MAX, hour), Timestamp::MAX);
        assert_eq!(after(now, Duration::MAX), Timestamp::MAX);
    }
}
