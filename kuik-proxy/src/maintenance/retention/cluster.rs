//! One cluster's document in memory, and when it lapses.

use std::time::{Duration, SystemTime};

use kuik_core::retention::RetentionDocument;
use tokio::time::Instant;

/// Renewal times up to this far in the future are clock skew.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// Minimum time that a document counts after it was read: its cluster may renew it.
const GRACE: Duration = Duration::from_secs(3600);

/// The document of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub content: Content,
    /// When the cluster last sent it.
    pub renewed_at: SystemTime,
    /// When this process first saw it with that renewal time.
    pub seen: Instant,
}

#[derive(Debug)]
pub(super) enum Content {
    Known {
        etag: String,
        document: RetentionDocument,
    },
    /// The stored document is damaged, so its images are unknown.
    Damaged,
}

impl Cluster {
    /// Returns whether the document counts: at `now` by the clock and `instant` by the process's own time.
    ///
    /// A document that was renewed in the future counts from when it was seen: a clock was wrong.
    pub(super) fn is_live(&self, now: SystemTime, instant: Instant, lapse: Duration) -> bool {
        let known_for = instant.saturating_duration_since(self.seen);
        let age = match now.duration_since(self.renewed_at) {
            Ok(age) => age,
            Err(ahead) if ahead.duration() <= SKEW => Duration::ZERO,
            Err(_) => known_for,
        };
        age <= lapse || known_for < lapse.min(GRACE)
    }

    /// Returns whether the renewal time is plausible and recent enough. If not, the document is to be renewed, even
    /// while it counts.
    pub(super) fn is_current(&self, now: SystemTime, lapse: Duration) -> bool {
        match now.duration_since(self.renewed_at) {
            Ok(age) => age <= lapse,
            Err(ahead) => ahead.duration() <= SKEW,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn document_lapses_by_renewal_time_but_not_at_once_when_read_late_or_renewed_in_the_future() {
        let (wall, start, lapse) = (SystemTime::UNIX_EPOCH + 1000 * DAY, Instant::now(), 30 * DAY);
        let live = |renewed_at: SystemTime, seen: Instant, passed: Duration| {
            let cluster = Cluster { content: Content::Damaged, renewed_at, seen };
            cluster.is_live(wall + passed, start + passed, lapse)
        };
        assert!(live(wall, start, lapse));
        assert!(!live(wall, start, lapse + DAY));
        assert!(live(wall - 29 * DAY, start, Duration::ZERO));
        // Read after a long time: it counts for an hour, so that its cluster can renew it.
        assert!(live(wall - 40 * DAY, start, GRACE / 2));
        assert!(!live(wall - 40 * DAY, start, GRACE));
        for ahead in [GRACE, 1000 * DAY] {
            assert!(live(wall + ahead, start, lapse), "{ahead:?}");
        }
        assert!(!live(wall + 1000 * DAY, start, lapse + DAY), "a wrong clock does not keep it permanently");
    }

    #[test]
    fn document_from_the_future_or_long_ago_is_to_be_renewed() {
        let (wall, lapse) = (SystemTime::UNIX_EPOCH + 1000 * DAY, 30 * DAY);
        for (renewed_at, expected) in [
            (wall, true),
            (wall - lapse, true),
            (wall - lapse - SKEW, false),
            (wall + SKEW, true),
            (wall + SKEW * 2, false),
        ] {
            let cluster = Cluster { content: Content::Damaged, renewed_at, seen: Instant::now() };
            assert_eq!(cluster.is_current(wall, lapse), expected, "{renewed_at:?}");
        }
    }
}
