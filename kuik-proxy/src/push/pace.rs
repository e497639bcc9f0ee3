//! How slowly a body may come. A client that sends a byte now and then is never silent, and would keep its place among
//! the uploads for ever.
//!
//! Only time that is spent waiting for the client counts: a store that is slow is no fault of its client's. What came
//! fast earns nothing for later, and a body that is shorter than a window's share has a whole window.

use std::time::Duration;

/// The pace of one body: of every so many bytes in turn, the share, no more than a window may be waited for.
#[derive(Debug)]
pub(super) struct Pace {
    share: u64,
    window: Duration,
    waited: Duration,
    received: u64,
}

impl Pace {
    /// A body that comes with `rate` bytes a second at least, over a window. Any pace is good where that makes no whole
    /// byte a window.
    pub(super) fn new(rate: u64, window: Duration) -> Self {
        let share = u128::from(rate).saturating_mul(window.as_millis()) / 1000;
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        Self { share, window, waited: Duration::ZERO, received: 0 }
    }

    /// How long the next bytes may be waited for; `None` is for ever.
    pub(super) fn patience(&self) -> Option<Duration> {
        (self.share > 0).then(|| self.window.saturating_sub(self.waited))
    }

    /// So many bytes came, after a wait.
    pub(super) fn came(&mut self, bytes: u64, waited: Duration) {
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
    fn who_keeps_the_pace_has_all_the_time_there_is() {
        let mut pace = Pace::new(100, 30 * SECOND);
        for _ in 0..10_000 {
            pace.came(100, SECOND);
            assert!(pace.patience() > Some(Duration::ZERO));
        }
    }

    #[test]
    fn who_does_not_has_a_window() {
        let mut pace = Pace::new(100, 30 * SECOND);
        for waited in 1..=30 {
            pace.came(99, SECOND);
            assert_eq!(pace.patience(), Some((30 - waited) * SECOND));
        }
        pace.came(30, Duration::ZERO);
        assert_eq!(pace.patience(), Some(30 * SECOND), "the share came, and a new window begins");
    }

    #[test]
    fn what_came_fast_earns_nothing() {
        let mut pace = Pace::new(100, 30 * SECOND);
        pace.came(1 << 30, Duration::ZERO);
        pace.came(1, 29 * SECOND);
        assert_eq!(pace.patience(), Some(SECOND));
    }

    #[test]
    fn no_rate_is_no_limit() {
        for (rate, window) in [(0, 30 * SECOND), (100, Duration::ZERO)] {
            let mut pace = Pace::new(rate, window);
            pace.came(0, 3600 * SECOND);
            assert_eq!(pace.patience(), None);
        }
        assert_eq!(Pace::new(u64::MAX, Duration::MAX).patience(), Some(Duration::MAX), "nothing overflows");
    }
}
