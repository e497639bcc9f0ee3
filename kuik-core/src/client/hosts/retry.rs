//! Retry budget and exponential backoff. Pure: random numbers are arguments.
//!
//! Retries cost tokens that successes earn, so that an overloaded host does not get three times the requests of a
//! healthy one.

use std::time::Duration;

/// When a failed request is retried.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RetryOptions {
    /// The maximum number of retries of a request: 2.
    pub attempts: u32,
    /// The initial and maximum number of tokens of a host; each retry costs one: 10.
    pub tokens: f64,
    /// Tokens earned by a success: 0.1, one retry per ten requests.
    pub earned: f64,
    /// The longest wait before the first retry: 200 ms. It doubles with each retry; jitter subtracts up to half.
    pub first: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self { attempts: 2, tokens: 10.0, earned: 0.1, first: Duration::from_millis(200) }
    }
}

/// The tokens of one host.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetryBudget {
    options: RetryOptions,
    tokens: f64,
}

impl RetryBudget {
    pub(super) fn new(options: RetryOptions) -> Self {
        Self { options, tokens: options.tokens }
    }

    /// Records a success.
    pub(super) fn earn(&mut self) {
        self.tokens = (self.tokens + self.options.earned).min(self.options.tokens);
    }

    /// Returns the wait before the next attempt if one is allowed; `retries` is the number of retries so far.
    pub(super) fn spend(&mut self, retries: u32, chance: f64) -> Option<Duration> {
        if retries >= self.options.attempts || self.tokens < 1.0 {
            return None;
        }
        self.tokens -= 1.0;
        let longest = self.options.first.saturating_mul(2_u32.saturating_pow(retries));
        Some(longest.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_with_jitter() {
        for (retries, chance, millis) in [
            (0, 0.0, Some(200)),
            (0, 1.0, Some(100)),
            (1, 0.5, Some(300)),
            (1, 7.0, Some(200)),
            (2, 0.0, None),
        ] {
            let wait = RetryBudget::new(RetryOptions::default()).spend(retries, chance);
            assert_eq!(wait, millis.map(Duration::from_millis), "{retries} {chance}");
        }
    }

    #[test]
    fn budget_runs_out_and_successes_refill_it() {
        let mut budget =
            RetryBudget::new(RetryOptions { tokens: 2.0, earned: 0.25, ..RetryOptions::default() });
        assert!(budget.spend(0, 0.0).is_some() && budget.spend(0, 0.0).is_some());
        assert_eq!(budget.spend(0, 0.0), None);
        (0..3).for_each(|_| budget.earn());
        assert_eq!(budget.spend(0, 0.0), None);
        budget.earn();
        assert!(budget.spend(0, 0.0).is_some() && budget.spend(0, 0.0).is_none());
        (0..100).for_each(|_| budget.earn());
        assert_eq!((0..9).filter_map(|_| budget.spend(0, 0.0)).count(), 2, "tokens are capped");
    }
}
