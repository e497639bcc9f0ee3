//! Trying again: how often, and after how long. Pure; chance comes in as an argument.
//!
//! Retries are paid for with tokens that successes earn, so that a host in trouble is not asked three times as much as
//! one that is well.

use std::time::Duration;

/// When a request that failed is made again.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RetryOptions {
    /// How often at most: 2.
    pub attempts: u32,
    /// How many tokens a host has at first, and at most; each retry costs one: 10.
    pub tokens: f64,
    /// What a success earns: 0.1, a retry for ten requests.
    pub earned: f64,
    /// The longest wait before the first retry: 200 ms. It doubles with each, and is shortened by half at random.
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

    /// A request was answered well.
    pub(super) fn earn(&mut self) {
        self.tokens = (self.tokens + self.options.earned).min(self.options.tokens);
    }

    /// How long to wait before the next attempt, where there is to be one; `made` have been made again already.
    pub(super) fn spend(&mut self, made: u32, chance: f64) -> Option<Duration> {
        if made >= self.options.attempts || self.tokens < 1.0 {
            return None;
        }
        self.tokens -= 1.0;
        let longest = self.options.first.saturating_mul(2_u32.saturating_pow(made));
        Some(longest.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_shortened_at_random() {
        for (made, chance, millis) in [
            (0, 0.0, Some(200)),
            (0, 1.0, Some(100)),
            (1, 0.5, Some(300)),
            (1, 7.0, Some(200)),
            (2, 0.0, None),
        ] {
            let wait = RetryBudget::new(RetryOptions::default()).spend(made, chance);
            assert_eq!(wait, millis.map(Duration::from_millis), "{made} {chance}");
        }
    }

    #[test]
    fn tokens_run_out_and_successes_earn_new_ones() {
        let mut budget =
            RetryBudget::new(RetryOptions { tokens: 2.0, earned: 0.25, ..RetryOptions::default() });
        assert!(budget.spend(0, 0.0).is_some() && budget.spend(0, 0.0).is_some());
        assert_eq!(budget.spend(0, 0.0), None);
        (0..3).for_each(|_| budget.earn());
        assert_eq!(budget.spend(0, 0.0), None);
        budget.earn();
        assert!(budget.spend(0, 0.0).is_some() && budget.spend(0, 0.0).is_none());
        (0..100).for_each(|_| budget.earn());
        assert_eq!((0..9).filter_map(|_| budget.spend(0, 0.0)).count(), 2, "they are not hoarded");
    }
}
