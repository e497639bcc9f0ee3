//! Wall clock that does not follow a forward jump at once.
//!
//! Invariant: whatever the system clock does, nothing becomes old sooner than time passes, unless the clock has been
//! ahead for a day. So a clock that is set forward by mistake expires nothing, and one that was wrong at startup is
//! followed eventually. A clock that is set back is followed at once: that only makes things younger.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Difference between the clocks that counts as drift, not as a jump.
const DRIFT: Duration = Duration::from_secs(5 * 60);

/// How long the system clock is ahead until it is followed.
const CONFIRMED: Duration = Duration::from_secs(24 * 3600);

/// The time of the system clock, except during the first day after a forward jump of it.
#[derive(Debug)]
pub struct SteadyClock(Mutex<State>);

#[derive(Debug)]
struct State {
    wall: SystemTime,
    at: Instant,
    /// Since when the system clock is ahead.
    ahead_since: Option<Instant>,
}

impl Default for SteadyClock {
    fn default() -> Self {
        Self::starting(SystemTime::now(), Instant::now())
    }
}

impl SteadyClock {
    fn starting(wall: SystemTime, at: Instant) -> Self {
        Self(Mutex::new(State { wall, at, ahead_since: None }))
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.read(SystemTime::now(), Instant::now())
    }

    fn read(&self, wall: SystemTime, at: Instant) -> SystemTime {
        let mut state = self.0.lock();
        let steady = state.wall + at.saturating_duration_since(state.at);
        if wall > steady + DRIFT {
            let since = *state.ahead_since.get_or_insert(at);
            if at.saturating_duration_since(since) < CONFIRMED {
                return steady;
            }
        }
        *state = State { wall, at, ahead_since: None };
        wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn forward_jump_is_followed_after_a_day_and_a_backward_one_at_once() {
        let (wall, start) = (SystemTime::UNIX_EPOCH + 1000 * DAY, Instant::now());
        let clock = SteadyClock::starting(wall, start);
        let minute = Duration::from_secs(60);
        assert_eq!(clock.read(wall + minute, start + minute), wall + minute);
        assert_eq!(clock.read(wall + 3 * minute, start + 2 * minute), wall + 3 * minute, "drift");
        let (jumped, at) = (wall + 400 * DAY, start + 3 * minute);
        assert_eq!(clock.read(jumped, at), wall + 4 * minute);
        assert_eq!(clock.read(jumped + DAY / 2, at + DAY / 2), wall + 4 * minute + DAY / 2);
        assert_eq!(clock.read(wall + DAY, at + DAY), wall + DAY, "the jump was undone");
        assert_eq!(clock.read(jumped, at + DAY), wall + DAY);
        assert_eq!(clock.read(jumped + DAY, at + 2 * DAY), jumped + DAY, "it has been ahead for a day");
        assert_eq!(clock.read(wall, at + 2 * DAY), wall);
    }
}
