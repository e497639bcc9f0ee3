//! Arithmetic on times that other clocks may have written.
//!
//! Invariant: a time in the future never keeps anything from happening. Whoever wrote it had another clock, and what is
//! due by it is due now.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How far clocks may differ before one of them is disbelieved.
pub(super) const SKEW: Duration = Duration::from_secs(5 * 60);

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
