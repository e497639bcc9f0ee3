//! A circuit breaker: after failures, who failed is left alone for a while, then asked once whether it is back.
//!
//! A pure state machine: time and chance come in as arguments, and it asks nobody anything itself.
//!
//! - *Closed*: requests go through. So many failures in a row open it.
//! - *Open*: none goes through until an interval is over. The interval begins short, doubles with each probe that
//!   fails, up to a bound, and is shortened at random, so that many proxies do not come back at the same moment.
//! - *Half open*: one probe is on its way. Its success closes the breaker, its failure opens it for longer.

use std::time::{Duration, Instant};

/// When a [`Breaker`] opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerOptions {
    /// How many failures in a row open it: 1.
    pub failures: u32,
    /// How long it is open at first: 1 s at most, half of it at least.
    pub first: Duration,
    /// How long it is open at most between two probes: 5 s.
    pub longest: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 1, first: Duration::from_secs(1), longest: Duration::from_secs(5) }
    }
}

/// Whether somebody who failed is to be asked again.
#[derive(Debug, Clone)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, interval: Duration },
    HalfOpen { interval: Duration },
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// Whether requests go through.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// When the next probe is due, where one is.
    #[must_use]
    pub fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Takes the one probe, where it is due. Whoever gets `true` tells what came of it: [`Breaker::succeeded`],
    /// [`Breaker::failed`] or [`Breaker::abandoned`].
    pub fn try_probe(&mut self, now: Instant) -> bool {
        match self.state {
            State::Open { until, interval } if until <= now => {
                self.state = State::HalfOpen { interval };
                true
            }
            _ => false,
        }
    }

    /// A request, or the probe, was answered. Of one that was sent before the breaker opened, that is old news.
    pub fn succeeded(&mut self) {
        if !matches!(self.state, State::Open { .. }) {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// A request, or the probe, failed. `chance` is a random number from 0 to 1.
    pub fn failed(&mut self, now: Instant, chance: f64) {
        let interval = match self.state {
            State::Closed { failures } if failures + 1 < self.options.failures => {
                self.state = State::Closed { failures: failures + 1 };
                return;
            }
            State::Closed { .. } => self.options.first,
            State::HalfOpen { interval } => interval.saturating_mul(2),
            // One of several requests that were on their way when the first of them failed.
            State::Open { .. } => return,
        };
        let interval = interval.min(self.options.longest);
        let wait = interval.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0);
        self.state = State::Open { until: now + wait, interval };
    }

    /// Nothing has been heard for a while: open, with a probe that is due at once. Whoever is only slow is back as soon
    /// as it answers that.
    pub fn suspected(&mut self, now: Instant) {
        if let State::Closed { .. } = self.state {
            self.state = State::Open { until: now, interval: self.options.first / 2 };
        }
    }

    /// The probe was given up without an answer: another one is due at once.
    pub fn abandoned(&mut self, now: Instant) {
        if let State::HalfOpen { interval } = self.state {
            self.state = State::Open { until: now, interval };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn opens_probes_once_and_closes() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerOptions::default());
        assert!(breaker.is_closed() && !breaker.try_probe(now) && breaker.probe_at().is_none());
        breaker.failed(now, 0.0);
        assert!(!breaker.is_closed());
        assert!(!breaker.try_probe(now + SECOND / 2), "it is not due");
        assert!(breaker.try_probe(now + SECOND));
        assert!(
            !breaker.try_probe(now + SECOND * 9) && !breaker.is_closed(),
            "there is one probe, and no more"
        );
        breaker.succeeded();
        assert!(breaker.is_closed());
    }

    #[test]
    fn the_interval_doubles_up_to_its_bound_and_begins_anew() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(BreakerOptions::default());
        let mut waits = Vec::new();
        for _ in 0..5 {
            breaker.failed(now, 0.0);
            let due = breaker.probe_at().unwrap();
            waits.push((due - now).as_secs());
            now = due;
            assert!(breaker.try_probe(now));
        }
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        breaker.succeeded();
        breaker.failed(now, 0.0);
        assert_eq!(breaker.probe_at(), Some(now + SECOND));
    }

    #[test]
    fn chance_shortens_the_interval_by_half_at_most() {
        let now = Instant::now();
        for (chance, millis) in [(0.0, 1000), (0.5, 750), (1.0, 500), (7.0, 500)] {
            let mut breaker = Breaker::new(BreakerOptions::default());
            breaker.failed(now, chance);
            assert_eq!(breaker.probe_at(), Some(now + Duration::from_millis(millis)), "{chance}");
        }
    }

    #[test]
    fn failures_in_a_row_count_and_latecomers_do_not() {
        let now = Instant::now();
        let options = BreakerOptions { failures: 2, ..BreakerOptions::default() };
        let mut breaker = Breaker::new(options);
        breaker.failed(now, 0.0);
        breaker.succeeded();
        breaker.failed(now, 0.0);
        assert!(breaker.is_closed(), "a success came between");
        breaker.failed(now, 0.0);
        assert_eq!(breaker.probe_at(), Some(now + SECOND));
        breaker.failed(now + SECOND / 2, 0.0);
        breaker.succeeded();
        assert_eq!(breaker.probe_at(), Some(now + SECOND), "those were sent before it opened");
    }

    #[test]
    fn a_suspicion_is_looked_into_at_once() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerOptions::default());
        breaker.suspected(now);
        assert!(!breaker.is_closed() && breaker.try_probe(now));
        breaker.failed(now, 0.0);
        assert_eq!(breaker.probe_at(), Some(now + SECOND), "then it goes on as after any failure");
        breaker.suspected(now + SECOND);
        assert_eq!(breaker.probe_at(), Some(now + SECOND), "what is known to be away is not suspected");
    }

    #[test]
    fn a_probe_that_is_given_up_is_made_again() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerOptions::default());
        breaker.failed(now, 0.0);
        assert!(breaker.try_probe(now + SECOND));
        breaker.abandoned(now + SECOND);
        assert!(breaker.try_probe(now + SECOND));
        breaker.succeeded();
        breaker.abandoned(now + SECOND);
        assert!(breaker.is_closed());
    }
}
