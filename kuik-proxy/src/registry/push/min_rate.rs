//! Minimum upload rate. A client that sends a byte now and then never times out, and would hold its upload slot
//! forever.
//!
//! Only time spent waiting for the client counts: a slow store is not the client's fault. Bytes sent faster than
//! required earn no credit for later, and a body shorter than a window's share gets a whole window.

use std::time::Duration;

/// Rate check of one body: each successive `share` of bytes may take at most `window` of waiting.
#[derive(Debug)]
pub(super) struct MinRate {
    share: u64,
    window: Duration,
    waited: Duration,
    received: u64,
}

impl MinRate {
    /// Requires at least `rate` bytes a second, measured over `window`. There is no minimum if that is less than one
    /// byte per window.
    pub(super) fn new(rate: u64, window: Duration) -> Self {
        let share = u128::from(rate).saturating_mul(window.as_millis()) / 1000;
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        Self { share, window, waited: Duration::ZERO, received: 0 }
    }

    /// How long to wait for the next bytes; `None` is no limit.
    pub(super) fn time_left(&self) -> Option<Duration> {
        (self.share > 0).then(|| self.window.saturating_sub(self.waited))
    }

    /// Records `bytes` that arrived after waiting for `waited`.
    pub(super) fn record(&mut self, bytes: u64, waited: Duration) {
        self.received = self.received.saturating_add(bytes);
        self.waited = self.waited.saturating_add(waited);
        if self.received >= self.share {
            (self.received, self.waited) = (0, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn body_at_the_minimum_rate_never_times_out() {
        let mut rate_check = MinRate::new(100, 30 * SECOND);
        for _ in 0..10_000 {
            rate_check.record(100, SECOND);
            assert!(rate_check.time_left() > Some(Duration::ZERO));
        }
    }

    #[test]
    fn slow_body_times_out_after_one_window() {
        let mut rate_check = MinRate::new(100, 30 * SECOND);
        for waited in 1..=30 {
            rate_check.record(99, SECOND);
            assert_eq!(rate_check.time_left(), Some((30 - waited) * SECOND));
        }
        rate_check.record(30, Duration::ZERO);
        assert_eq!(rate_check.time_left(), Some(30 * SECOND), "the share arrived, and a new window begins");
    }

    #[test]
    fn fast_bytes_earn_no_credit() {
        let mut rate_check = MinRate::new(100, 30 * SECOND);
        rate_check.record(1 << 30, Duration::ZERO);
        rate_check.record(1, 29 * SECOND);
        assert_eq!(rate_check.time_left(), Some(SECOND));
    }

    #[test]
    fn zero_rate_is_unlimited() {
        for (rate, window) in [(0, 30 * SECOND), (100, Duration::ZERO)] {
            let mut rate_check = MinRate::new(rate, window);
            rate_check.record(0, 3600 * SECOND);
            assert_eq!(rate_check.time_left(), None);
        }
        assert_eq!(
            MinRate::new(u64::MAX, Duration::MAX).time_left(),
            Some(Duration::MAX),
            "nothing overflows"
        );
    }
}
