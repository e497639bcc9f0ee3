//! Arithmetic on times that other clocks may have written.
//!
//! Invariant: a time in the future never keeps anything from happening. Whoever wrote it had another clock, and what is
//! due by it is due now.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How far clocks may differ before one of them is disbelieved.
pub(crate) const SKEW: Duration = Duration::from_secs(5 * 60);

/// `delay` after `at`; the end of time where there is no such time.
pub(super) fn after(at: Timestamp, delay: Duration) -> Timestamp {
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// When something is due that is done every `interval`, and was done `last`: now, where that is further in the future
/// than clocks differ.
pub(super) fn due(last: Option<Timestamp>, interval: Duration, now: Timestamp) -> Timestamp {
    match last {
        Some(last) if last <= after(now, SKEW) => after(last, interval),
        _ => now,
    }
}

/// The last of the times `from`, `from` and one `interval`, and so on, that is not after `now`; `from` where none is.
pub(super) fn last_turn(from: Timestamp, interval: Duration, now: Timestamp) -> Timestamp {
    let passed = Duration::try_from(now.duration_since(from)).unwrap_or_default();
    let turns = passed.as_nanos().checked_div(interval.as_nanos()).unwrap_or_default();
    after(from, interval.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX)))
}

/// The earlier of two times, where there is any.
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
    fn turns_come_one_interval_after_the_other() {
        let hour = Duration::from_secs(3600);
        for (now, turn) in [(0, 7200), (7200, 7200), (10_799, 7200), (10_800, 10_800), (7_207_300, 7_207_200)]
        {
            assert_eq!(last_turn(at(7200), hour, at(now)), at(turn), "{now}");
        }
        assert_eq!(last_turn(at(7200), Duration::ZERO, at(9000)), at(7200));
    }

    #[test]
    fn what_was_done_in_the_future_is_due_now() {
        let (now, hour) = (at(1_000_000), Duration::from_secs(3600));
        assert_eq!(due(None, hour, now), now);
        assert_eq!(due(Some(at(999_999)), hour, now), at(1_003_599));
        assert_eq!(due(Some(at(1_000_200)), hour, now), at(1_003_800));
        assert_eq!(due(Some(at(1_000_400)), hour, now), now);
        assert_eq!(after(Timestamp::MAX, hour), Timestamp::MAX);
        assert_eq!(after(now, Duration::MAX), Timestamp::MAX);
    }
}
