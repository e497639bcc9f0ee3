//! Retry policy for interrupted transfers: pure decisions.
//!
//! Invariant: the number of attempts is bounded by the bytes received, and upstream is never asked for bytes that it
//! has sent, except once if it does not support ranges.

use std::time::Duration;

use kuik_core::content::{SourceError, SourceErrorKind};

/// Number of interruptions allowed without much progress.
const SPARE_ATTEMPTS: u64 = 5;

/// One more interruption is allowed for each of this many received bytes.
const BYTES_PER_ATTEMPT: u64 = 16 << 20;

/// Pause before the second attempt in a row; it doubles with each further attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause, and the longest `Retry-After` that is honored: readers wait meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Interruptions of one transfer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Breaks {
    attempts: u64,
    /// Number of interruptions since the last byte.
    in_a_row: u32,
    /// Whether upstream has sent everything again in response to a range request.
    ignored_range: bool,
}

impl Breaks {
    /// Returns the pause before the rest is requested; `None` if it is not, and `error` is final.
    ///
    /// `random` is a random number for the jitter, so that many transfers broken by one upstream do not resume at the
    /// same time.
    pub(super) fn pause_after(
        &mut self,
        error: &SourceError,
        received: u64,
        random: u64,
    ) -> Option<Duration> {
        let asked = match error.kind() {
            // A request sent before the upstream's deadline is not counted against it.
            SourceErrorKind::Unavailable | SourceErrorKind::TimedOut => {
                error.retry_after().unwrap_or_default().min(LONGEST_PAUSE)
            }
            SourceErrorKind::RateLimited => error.retry_after().unwrap_or(FIRST_PAUSE),
            _ => return None,
        };
        let allowed = SPARE_ATTEMPTS + received / BYTES_PER_ATTEMPT;
        if self.ignored_range || self.attempts >= allowed || asked > LONGEST_PAUSE {
            return None;
        }
        let pause = match self.in_a_row {
            0 => Duration::ZERO,
            again => (FIRST_PAUSE * 2_u32.saturating_pow(again - 1)).min(LONGEST_PAUSE),
        };
        self.attempts += 1;
        self.in_a_row += 1;
        let jitter = pause.mul_f64((random % 1000) as f64 / 2000.0);
        Some(asked.max(pause.saturating_sub(jitter)))
    }

    /// Resets the backoff: bytes have arrived.
    pub(super) fn moved(&mut self) {
        self.in_a_row = 0;
    }

    /// Records that upstream sends everything from the first byte on: it does not support ranges, and this is the
    /// last attempt.
    pub(super) fn range_was_ignored(&mut self) {
        self.ignored_range = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> SourceError {
        SourceError::new(SourceErrorKind::Unavailable, "it broke")
    }

    #[test]
    fn attempts_are_bounded_by_received_bytes() {
        let attempts = |received: u64| {
            let mut breaks = Breaks::default();
            std::iter::from_fn(|| breaks.pause_after(&broken(), received, 0)).count() as u64
        };
        assert_eq!(attempts(0), SPARE_ATTEMPTS);
        assert_eq!(attempts(100 * BYTES_PER_ATTEMPT), SPARE_ATTEMPTS + 100);
    }

    #[test]
    fn first_attempt_is_immediate_and_later_ones_back_off() {
        let mut breaks = Breaks::default();
        let mut pause = |random| breaks.pause_after(&broken(), 0, random).unwrap();
        assert_eq!(pause(999), Duration::ZERO);
        assert_eq!(pause(0), FIRST_PAUSE);
        assert_eq!(pause(0), FIRST_PAUSE * 2);
        assert!(
            (FIRST_PAUSE * 2..FIRST_PAUSE * 4).contains(&pause(999)),
            "jitter shortens it, by half at most"
        );
        breaks.moved();
        assert_eq!(breaks.pause_after(&broken(), 0, 0), Some(Duration::ZERO));
    }

    #[test]
    fn permanent_errors_are_final() {
        let kinds = [
            SourceErrorKind::InvalidContent,
            SourceErrorKind::NotFound,
            SourceErrorKind::Unauthorized,
            SourceErrorKind::Denied,
            SourceErrorKind::Storage,
        ];
        for kind in kinds {
            assert_eq!(Breaks::default().pause_after(&SourceError::new(kind, "end"), 0, 0), None, "{kind:?}");
        }
        for (seconds, expected) in [(3, Some(Duration::from_secs(3))), (60, None)] {
            let limited = SourceError::rate_limited("limit", Some(Duration::from_secs(seconds)));
            assert_eq!(Breaks::default().pause_after(&limited, 0, 0), expected);
        }
        for (seconds, expected) in [(3, 3), (60, 5)] {
            let held = broken().to_be_retried_after(Duration::from_secs(seconds));
            let pause = Breaks::default().pause_after(&held, 0, 0);
            assert_eq!(pause, Some(Duration::from_secs(expected)), "it may be back before its retry-after");
        }
        let mut breaks = Breaks::default();
        breaks.range_was_ignored();
        assert_eq!(breaks.pause_after(&broken(), 0, 0), None);
    }
}
