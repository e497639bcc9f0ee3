//! Exponential backoff with jitter, per image and per registry.
//!
//! The delay of an image doubles with each consecutive failure. A failing registry is backed off as a whole: all its
//! images wait for it together.

use std::time::Duration;

use jiff::Timestamp;

use super::time::after;

/// Delay after the first failure.
const FIRST: Duration = Duration::from_secs(5);
/// Maximum computed delay: a recovery is noticed within this time.
const MAX_DELAY: Duration = Duration::from_secs(10 * 60);
/// Maximum delay for the cache: content it lost must be detected within a minute of its recovery.
const MAX_CACHE_DELAY: Duration = Duration::from_secs(30);
/// Delay after the cache did not keep an image for the first time, and the maximum. Meanwhile the cache is asked at every
/// verification whether space came free, so a long delay does not delay a recovery.
const FULL_FIRST: Duration = Duration::from_secs(2 * 60);
const FULL_MAX: Duration = Duration::from_secs(15 * 60);
/// Maximum `Retry-After` that is honored.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Returns the delay after `failures` consecutive failures.
///
/// `salt` identifies the image: a hash of it subtracts up to a quarter of the delay as jitter, so that images that
/// failed together are not retried together.
#[must_use]
pub fn delay(failures: u32, salt: &str) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    spread(doubled.min(MAX_DELAY), salt)
}

/// Returns the delay after the cache did not keep an image `count` consecutive times; none if that was never.
#[must_use]
pub fn full_delay(count: u32, salt: &str) -> Duration {
    let Some(doublings) = count.checked_sub(1) else { return Duration::ZERO };
    let doubled = FULL_FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
    spread(doubled.min(FULL_MAX), salt)
}

/// Returns `interval` minus jitter of up to a quarter, derived from `salt`, to spread periodic work.
pub(super) fn spread(interval: Duration, salt: &str) -> Duration {
    // FNV-1a: any hash that spreads well is fine.
    let hash =
        salt.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    interval - interval.mul_f64(f64::from(hash % 1000) / 4000.0)
}

/// Backoff state of a registry or of the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    until: Option<Timestamp>,
}

impl Backoff {
    /// Returns when the next request may be sent; `None` if not backed off.
    #[must_use]
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        // A time later than any backoff from now was set before the clock jumped back.
        self.until.filter(|&until| until > now && until <= after(now, MAX_RETRY_AFTER))
    }

    /// Records a failure, with the `Retry-After` of the response if any.
    ///
    /// Requests in flight during the first failure count as one failure.
    pub fn failed(&mut self, salt: &str, retry_after: Option<Duration>, now: Timestamp) {
        let asked = retry_after.map(|wait| after(now, wait.min(MAX_RETRY_AFTER)));
        if self.retry_at(now).is_none() {
            self.failures = self.failures.saturating_add(1);
            self.until = Some(after(now, delay(self.failures, salt)));
        }
        self.until = self.until.max(asked);
    }

    /// Records a failure of the cache, with a shorter maximum delay.
    pub fn cache_failed(&mut self, retry_after: Option<Duration>, now: Timestamp) {
        self.failed("", retry_after, now);
        self.until = self.until.min(Some(after(now, MAX_CACHE_DELAY)));
    }

    /// Resets the backoff after a success.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// Returns whether there are no recent failures.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.failures == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_up_to_ten_minutes_with_jitter() {
        for (failures, longest) in
            [(0, 5), (1, 5), (2, 10), (3, 20), (7, 320), (8, 600), (40, 600), (u32::MAX, 600)]
        {
            let wait = delay(failures, "a");
            let longest = Duration::from_secs(longest);
            assert!(wait <= longest && wait >= longest.mul_f64(0.74), "{failures}: {wait:?}");
        }
        let spread: std::collections::BTreeSet<_> = (0..100).map(|n| delay(9, &n.to_string())).collect();
        assert!(spread.len() > 80);
    }

    #[test]
    fn delay_of_a_full_cache_doubles_up_to_a_quarter_of_an_hour() {
        assert_eq!(full_delay(0, "a"), Duration::ZERO);
        for (count, longest) in [(1, 120), (2, 240), (3, 480), (4, 900), (5, 900), (u32::MAX, 900)] {
            let (wait, longest) = (full_delay(count, "a"), Duration::from_secs(longest));
            assert!(wait <= longest && wait >= longest.mul_f64(0.74), "{count}: {wait:?}");
        }
    }

    #[test]
    fn cache_backoff_never_exceeds_its_maximum() {
        let mut now = Timestamp::from_second(1_000_000).unwrap();
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.cache_failed(Some(Duration::from_secs(600)), now);
            let retry_at = backoff.retry_at(now).unwrap();
            assert!(retry_at <= after(now, MAX_CACHE_DELAY));
            now = retry_at;
        }
    }

    #[test]
    fn concurrent_failures_count_once() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.failed("r", None, now);
        }
        assert!(backoff.retry_at(now).unwrap() <= after(now, FIRST));
        let later = after(now, FIRST);
        assert_eq!(backoff.retry_at(later), None);
        backoff.failed("r", Some(Duration::from_secs(120)), later);
        assert_eq!(backoff.retry_at(later), Some(after(later, Duration::from_secs(120))));
        // A clock that was set back does not extend the backoff.
        assert_eq!(backoff.retry_at(Timestamp::from_second(1000).unwrap()), None);
        backoff.answered();
        assert!(backoff.is_idle());
    }
}
