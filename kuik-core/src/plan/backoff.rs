//! How long what has failed is left alone.
//!
//! An image waits longer after each failure in a row. A registry that is in trouble is left alone as a whole: its
//! images wait for it together, and not each for itself.

use std::time::Duration;

use jiff::Timestamp;

use super::time::after;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_secs(5);
/// The longest wait of its own accord: what returns after days is noticed within this.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// The longest wait for the cache: what it has lost meanwhile is to be known within a minute of its return.
const LONGEST_OF_CACHE: Duration = Duration::from_secs(30);
/// The longest wait that a registry may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// How long to wait after `failures` in a row.
///
/// `salt` is what tells one image from another: up to a quarter of the wait is taken off by it, so that what failed
/// together is not tried together.
#[must_use]
pub fn delay(failures: u32, salt: &str) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    spread(doubled.min(LONGEST), salt)
}

/// `interval`, with up to a quarter of it taken off by `salt`, so that what begins together does not stay together.
pub(super) fn spread(interval: Duration, salt: &str) -> Duration {
    // FNV-1a: any that spreads will do.
    let hash =
        salt.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    interval - interval.mul_f64(f64::from(hash % 1000) / 4000.0)
}

/// How a registry, or the cache, has fared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    until: Option<Timestamp>,
}

impl Backoff {
    /// When it may be asked again; `None` where it is not in trouble.
    #[must_use]
    pub fn free_at(&self, now: Timestamp) -> Option<Timestamp> {
        // A time that no failure now could have led to was set by another clock.
        self.until.filter(|&until| until > now && until <= after(now, LONGEST_ASKED))
    }

    /// It has failed, and says perhaps when it wants to be asked again.
    ///
    /// Those that were under way when it failed first fail with it, and count once.
    pub fn failed(&mut self, salt: &str, retry_after: Option<Duration>, now: Timestamp) {
        let asked = retry_after.map(|wait| after(now, wait.min(LONGEST_ASKED)));
        if self.free_at(now).is_none() {
            self.failures = self.failures.saturating_add(1);
            self.until = Some(after(now, delay(self.failures, salt)));
        }
        self.until = self.until.max(asked);
    }

    /// The same of the cache, which is never left alone for long.
    pub fn cache_failed(&mut self, retry_after: Option<Duration>, now: Timestamp) {
        self.failed("", retry_after, now);
        self.until = self.until.min(Some(after(now, LONGEST_OF_CACHE)));
    }

    /// It has answered.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// Whether it is not in trouble.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.failures == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_ten_minutes_and_are_spread() {
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
    fn the_cache_is_asked_again_within_a_minute_however_long_it_was_away() {
        let mut now = Timestamp::from_second(1_000_000).unwrap();
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.cache_failed(Some(Duration::from_secs(600)), now);
            let free_at = backoff.free_at(now).unwrap();
            assert!(free_at <= after(now, LONGEST_OF_CACHE));
            now = free_at;
        }
    }

    #[test]
    fn failures_of_one_moment_count_once() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.failed("r", None, now);
        }
        assert!(backoff.free_at(now).unwrap() <= after(now, FIRST));
        let later = after(now, FIRST);
        assert_eq!(backoff.free_at(later), None);
        backoff.failed("r", Some(Duration::from_secs(120)), later);
        assert_eq!(backoff.free_at(later), Some(after(later, Duration::from_secs(120))));
        // A clock that was set back does not make it wait for ever.
        assert_eq!(backoff.free_at(Timestamp::from_second(1000).unwrap()), None);
        backoff.answered();
        assert!(backoff.is_well());
    }
}
