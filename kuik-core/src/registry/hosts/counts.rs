//! What is counted per host, and the report of it.
//!
//! Invariant: names of hosts come from requests and from redirects, and series are for ever. Only a host that has
//! answered, or that the configuration names, is reported under its own name, and no more than [`MAX_NAMED`] are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;

use super::Quota;

/// How many hosts are reported under their own names.
pub(super) const MAX_NAMED: usize = 200;

/// What came of a request to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It was answered: a success, a redirect, or a fault of the question.
    Answered,
    /// There is no such thing.
    NotFound,
    /// Who asks is not welcome, or has to say who it is.
    Refused,
    /// Too many requests.
    RateLimited,
    /// The host failed.
    Failed,
    /// Nothing was heard from it.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
    /// Not sent: the host has asked to wait.
    Held,
    /// Not sent: the host does not answer, and is left alone for a moment.
    LeftAlone,
    /// Not sent: too many others were on their way.
    Crowded,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 10] = [
        Self::Answered,
        Self::NotFound,
        Self::Refused,
        Self::RateLimited,
        Self::Failed,
        Self::Unreachable,
        Self::TimedOut,
        Self::Held,
        Self::LeftAlone,
        Self::Crowded,
    ];

    /// Its name, for labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Held => "held",
            Self::LeftAlone => "left_alone",
            Self::Crowded => "crowded",
        }
    }

    pub(super) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            404 | 410 => Self::NotFound,
            401 | 403 | 407 => Self::Refused,
            429 => Self::RateLimited,
            500..=599 => Self::Failed,
            _ => Self::Answered,
        }
    }
}

/// What a client has seen of one host.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostReport {
    /// The host, with its port where one is written; `None` for all those together that have no report of their own.
    pub name: Option<Arc<str>>,
    /// How often what came of requests.
    pub outcomes: Vec<(Outcome, u64)>,
    /// Bytes of bodies that were received.
    pub received_bytes: u64,
    /// How often something was asked again.
    pub retries: u64,
    /// Whether it is left alone because it does not answer.
    pub left_alone: bool,
    /// Requests that are on their way, bodies included.
    pub in_flight: usize,
    /// What it last said is left of our quota.
    pub quota: Option<Quota>,
    /// For how long it still wants to be asked no more, the longest of several.
    pub held_for: Option<Duration>,
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

    /// Adds what another has counted.
    pub(super) fn absorb(&self, other: &Self) {
        for (counter, more) in self.outcomes.iter().zip(&other.outcomes) {
            counter.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.received(other.received.load(Ordering::Relaxed));
        self.retries.fetch_add(other.retries.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// A report of the counters alone.
    pub(super) fn report(&self, name: Option<Arc<str>>) -> HostReport {
        let outcomes = Outcome::ALL.into_iter().zip(&self.outcomes);
        HostReport {
            name,
            outcomes: outcomes.map(|(outcome, counter)| (outcome, counter.load(Ordering::Relaxed))).collect(),
            received_bytes: self.received.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            left_alone: false,
            in_flight: 0,
            quota: None,
            held_for: None,
        }
    }
}
