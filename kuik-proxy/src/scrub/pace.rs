//! How fast a scrub reads: pure, over the time that it is told.

use std::{num::NonZeroU64, time::Duration};

use tokio::time::Instant;

/// What one look at a blob counts for beside its bytes: very many small ones keep a disk busy too.
const EACH_BLOB: u64 = 16 << 10;

/// Bounds the bytes that are read in a second. What was not read while there was time for it is not made up for.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: NonZeroU64,
    due: Option<Instant>,
}

impl Pace {
    pub(super) const fn new(per_second: NonZeroU64) -> Self {
        Self { per_second, due: None }
    }

    /// A blob is begun at `now`: when its first bytes may be read.
    pub(super) fn begin(&mut self, now: Instant) -> Instant {
        self.read(EACH_BLOB, now)
    }

    /// So many bytes have been read by `now`: when the next may be.
    pub(super) fn read(&mut self, bytes: u64, now: Instant) -> Instant {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second.get());
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.due.map_or(now, |due| due.max(now));
        // Beyond the end of time nobody waits any more.
        *self.due.insert(from.checked_add(takes).unwrap_or(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn so_many_bytes_take_so_long() {
        let start = Instant::now();
        let mut pace = Pace::new(NonZeroU64::new(1000).unwrap());
        assert_eq!(pace.read(500, start), start + SECOND / 2);
        assert_eq!(pace.read(500, start), start + SECOND);
        assert_eq!(pace.read(1000, start + SECOND), start + 2 * SECOND);
        let later = start + 100 * SECOND;
        assert_eq!(pace.read(1000, later), later + SECOND, "idle time is lost");
        assert_eq!(pace.begin(later), later + SECOND + SECOND * u32::try_from(EACH_BLOB).unwrap() / 1000);
    }
}
