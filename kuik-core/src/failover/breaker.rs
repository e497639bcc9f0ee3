//! Circuit breaker: after failures, requests to a source are paused, then one probe checks whether it has recovered.
//!
//! A pure state machine: time and randomness are arguments, and it sends no requests.
//!
//! - *Closed*: requests pass. A number of consecutive failures opens the breaker.
//! - *Open*: no request passes until an interval ends. The interval starts short, doubles with each failed probe up to
//!   a maximum (exponential backoff), and has random jitter, so that many proxies do not retry at the same moment.
//! - *Half open*: one probe is in flight. Success closes the breaker, failure opens it for longer.

use std::time::{Duration, Instant};

/// Configuration of a [`Breaker`]: its failure threshold and its intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerOptions {
    /// Number of consecutive failures that opens the breaker. Default: 1.
    pub failures: u32,
    /// First open interval, shortened by up to half at random. Default: 1 s.
    pub first: Duration,
    /// Maximum interval between two probes. Default: 5 s.
    pub longest: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 1, first: Duration::from_secs(1), longest: Duration::from_secs(5) }
    }
}

/// Circuit breaker of one source.
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
    /// Creates a closed breaker.
    #[must_use]
    pub fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// Whether requests pass.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// When the next probe is due, if the breaker is open.
    #[must_use]
    pub fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Acquires the probe if it is due. After `true`, the caller must report the result: [`Breaker::succeeded`],
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

    /// Records that a request or the probe succeeded. Ignored while open: that request was sent before the breaker opened.
    pub fn succeeded(&mut self) {
        if !matches!(self.state, State::Open { .. }) {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// Records that a request or the probe failed. `chance` is a random number from 0 to 1.
    pub fn failed(&mut self, now: Instant, chance: f64) {
        let interval = match self.state {
            State::Closed { failures } if failures + 1 < self.options.failures => {
                self.state = State::Closed { failures: failures + 1 };
                return;
            }
            State::Closed { .. } => self.options.first,
            State::HalfOpen { interval } => interval.saturating_mul(2),
            // One of several requests that were in flight when the first of them failed.
            State::Open { .. } => return,
        };
        let interval = interval.min(self.options.longest);
        let wait = interval.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0);
        self.state = State::Open { until: now + wait, interval };
    }

    /// Opens the breaker after a period without response, with a probe due immediately. A slow source recovers as soon as
    /// it answers the probe.
    pub fn suspected(&mut self, now: Instant) {
        if let State::Closed { .. } = self.state {
            self.state = State::Open { until: now, interval: self.options.first / 2 };
        }
    }

    /// Records that the probe was abandoned without a response: another one is due immediately.
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
    fn breaker_opens_probes_once_and_closes() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerOptions::default());
        assert!(breaker.is_closed() && !breaker.try_probe(now) && breaker.probe_at().is_none());
        breaker.failed(now, 0.0);
        assert!(!breaker.is_closed());
        assert!(!breaker.try_probe(now + SECOND / 2), "it is not due");
        assert!(breaker.try_probe(now + SECOND));
        assert!(!breaker.try_probe(now + SECOND * 9) && !breaker.is_closed(), "there is only one probe");
        breaker.succeeded();
        assert!(breaker.is_closed());
    }

    #[test]
    fn interval_doubles_up_to_maximum_and_resets_after_success() {
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
    fn jitter_shortens_interval_by_at_most_half() {
        let now = Instant::now();
        for (chance, millis) in [(0.0, 1000), (0.5, 750), (1.0, 500), (7.0, 500)] {
            let mut breaker = Breaker::new(BreakerOptions::default());
            breaker.failed(now, chance);
            assert_eq!(breaker.probe_at(), Some(now + Duration::from_millis(millis)), "{chance}");
        }
    }

    #[test]
    fn consecutive_failures_open_and_late_results_are_ignored() {
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
        assert_eq!(breaker.probe_at(), Some(now + SECOND), "those requests were sent before it opened");
    }

    #[test]
    fn suspected_breaker_probes_immediately() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerOptions::default());
        breaker.suspected(now);
        assert!(!breaker.is_closed() && breaker.try_probe(now));
        breaker.failed(now, 0.0);
        assert_eq!(breaker.probe_at(), Some(now + SECOND), "a failed probe counts as any failure");
        breaker.suspected(now + SECOND);
        assert_eq!(breaker.probe_at(), Some(now + SECOND), "suspicion does not change an open breaker");
    }

    #[test]
    fn abandoned_probe_is_retried_immediately() {
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
