//! Per-host request counters and their report.
//!
//! Invariant: host names come from requests and redirects, and metric series are permanent. Only a host that has
//! responded, or that the configuration names, is reported under its own name, and at most [`MAX_NAMED`] are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;

use super::Quota;

/// The maximum number of hosts that are reported by name.
pub(super) const MAX_NAMED: usize = 200;

/// The result of a request to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// A response: success, redirect, or an invalid request.
    Answered,
    /// 404 Not Found or 410 Gone.
    NotFound,
    /// 401 Unauthorized, 403 Forbidden or 407 Proxy Authentication Required.
    Refused,
    /// The host answered 429 Too Many Requests.
    TooManyRequests,
    /// A 5xx status.
    Failed,
    /// No connection, or no response on it.
    Unreachable,
    /// No response in time.
    TimedOut,
    /// Not sent: the host asked to wait.
    RateLimited,
    /// Not sent: the circuit breaker is open.
    CircuitOpen,
    /// Not sent: too many requests are in flight.
    Saturated,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 10] = [
        Self::Answered,
        Self::NotFound,
        Self::Refused,
        Self::TooManyRequests,
        Self::Failed,
        Self::Unreachable,
        Self::TimedOut,
        Self::RateLimited,
        Self::CircuitOpen,
        Self::Saturated,
    ];

    /// Returns the name, for labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::TooManyRequests => "too_many_requests",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::RateLimited => "rate_limited",
            Self::CircuitOpen => "circuit_open",
            Self::Saturated => "saturated",
        }
    }

    pub(super) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            404 | 410 => Self::NotFound,
            401 | 403 | 407 => Self::Refused,
            429 => Self::TooManyRequests,
            500..=599 => Self::Failed,
            _ => Self::Answered,
        }
    }
}

/// Statistics of one host.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostReport {
    /// The host, with its port if that is explicit; `None` for the sum of hosts without a report of their own.
    pub name: Option<Arc<str>>,
    /// Number of requests by outcome.
    pub outcomes: Vec<(Outcome, u64)>,
    /// Bytes received in response bodies.
    pub received_bytes: u64,
    /// Number of retries.
    pub retries: u64,
    /// Whether the circuit breaker is open.
    pub circuit_open: bool,
    /// Requests in flight, including response bodies.
    pub in_flight: usize,
    /// The quota that the host reported last.
    pub quota: Option<Quota>,
    /// Remaining time of the longest pause that the host asked for.
    pub paused_for: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    received: AtomicU64,
    retries: AtomicU64,
}

impl Counts {
    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds the counters of another host.
    pub(super) fn absorb(&self, other: &Self) {
        for (counter, more) in self.outcomes.iter().zip(&other.outcomes) {
            counter.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.received(other.received.load(Ordering::Relaxed));
        self.retries.fetch_add(other.retries.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Returns a report of the counters only.
    pub(super) fn report(&self, name: Option<Arc<str>>) -> HostReport {
        let outcomes = Outcome::ALL.into_iter().zip(&self.outcomes);
        HostReport {
            name,
            outcomes: outcomes.map(|(outcome, counter)| (outcome, counter.load(Ordering::Relaxed))).collect(),
            received_bytes: self.received.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            circuit_open: false,
            in_flight: 0,
            quota: None,
            paused_for: None,
        }
    }
}
