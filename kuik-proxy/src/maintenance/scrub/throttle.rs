//! Rate limit of a scrub: pure, time is an argument.

use std::{num::NonZeroU64, time::Duration};

use tokio::time::Instant;

/// Overhead counted for each blob: very many small ones keep a disk busy too.
const EACH_BLOB: u64 = 16 << 10;

/// Limits the bytes read per second. Unused capacity is not carried over.
#[derive(Debug)]
pub(super) struct Throttle {
    per_second: NonZeroU64,
    due: Option<Instant>,
}

impl Throttle {
    pub(super) const fn new(per_second: NonZeroU64) -> Self {
        Self { per_second, due: None }
    }

    /// Starts a blob at `now`; returns when its first bytes may be read.
    pub(super) fn begin(&mut self, now: Instant) -> Instant {
        self.read(EACH_BLOB, now)
    }

    /// Counts bytes read by `now`; returns when the next may be read.
    pub(super) fn read(&mut self, bytes: u64, now: Instant) -> Instant {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second.get());
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.due.map_or(now, |due| due.max(now));
        // A time that cannot be represented is never waited for.
        *self.due.insert(from.checked_add(takes).unwrap_or(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn throttle_spreads_reads_over_time() {
        let start = Instant::now();
        let mut throttle = Throttle::new(NonZeroU64::new(1000).unwrap());
        assert_eq!(throttle.read(500, start), start + SECOND / 2);
        assert_eq!(throttle.read(500, start), start + SECOND);
        assert_eq!(throttle.read(1000, start + SECOND), start + 2 * SECOND);
        let later = start + 100 * SECOND;
        assert_eq!(throttle.read(1000, later), later + SECOND, "idle time is lost");
        assert_eq!(throttle.begin(later), later + SECOND + SECOND * u32::try_from(EACH_BLOB).unwrap() / 1000);
    }
}
