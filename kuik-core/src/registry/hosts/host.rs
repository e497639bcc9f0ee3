//! One host: whether it is to be asked now, and what its answers mean for the next question.
//!
//! Only silence opens its breaker: a host that answers costs no waiting, whatever it answers. What it says about limits
//! is kept per account and kind of question, because that is how registries count: Docker Hub counts the manifests
//! that an account gets, and neither `HEAD`s nor blobs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    HostLimits, Quota,
    counts::{Counts, HostReport, Outcome},
    hold::hold,
    quota::quota,
    retry::RetryBudget,
};
use crate::{
    content::{SourceError, SourceErrorKind},
    failover::{Breaker, is_silence},
    registry::status,
};

/// After how long without an answer a request that is given up says something about its host.
const SILENCE: Duration = Duration::from_secs(2);
/// How many kinds of questions may be held at one host.
const MAX_HOLDS: usize = 64;

/// Who asks, and whether the registry counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::registry) struct Kind {
    /// The account, as its registry knows it; empty for nobody.
    pub(in crate::registry) account: Arc<str>,
    /// Whether it is a pull, as registries count them: a `GET` of a manifest.
    pub(in crate::registry) is_pull: bool,
}

#[derive(Debug)]
pub(in crate::registry) struct Host {
    pub(super) name: Arc<str>,
    limits: HostLimits,
    permits: Arc<Semaphore>,
    counts: Mutex<Arc<Counts>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    breaker: Option<Breaker>,
    holds: Vec<Hold>,
    retries: RetryBudget,
    quota: Option<Quota>,
}

#[derive(Debug)]
struct Hold {
    kind: Kind,
    until: Instant,
    length: Duration,
}

impl Host {
    /// A host that is well, as far as is known; `counts` is where it is counted for the time being.
    pub(super) fn new(name: Arc<str>, limits: HostLimits, counts: Arc<Counts>) -> Self {
        let state = State {
            breaker: limits.breaker.map(Breaker::new),
            holds: Vec::new(),
            retries: RetryBudget::new(limits.retries),
            quota: None,
        };
        let permits = Arc::new(Semaphore::new(limits.concurrent.min(Semaphore::MAX_PERMITS)));
        Self { name, limits, permits, counts: Mutex::new(counts), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts apart from now on.
    pub(super) fn count_in(&self, counts: Arc<Counts>) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// Leave to ask it something, by `deadline`; `what` is what is asked.
    ///
    /// # Errors
    /// `RateLimited` or `Unavailable`, with the time to wait, where it is not to be asked now.
    pub(in crate::registry) async fn admit(
        self: &Arc<Self>,
        what: &str,
        kind: Kind,
        deadline: Instant,
    ) -> Result<Admission, SourceError> {
        let now = Instant::now();
        if let Some((until, limited)) = self.held(&kind, now) {
            self.counts().count(Outcome::Held);
            let wait = until.saturating_duration_since(now);
            let text = format!(
                "{what}: not asked: {} wants to be left alone for {} s more",
                self.name,
                wait.as_secs().max(1)
            );
            let kind = if limited { SourceErrorKind::RateLimited } else { SourceErrorKind::Unavailable };
            return Err(SourceError::new(kind, text).to_be_retried_after(wait));
        }
        let probes = match self.pass(now) {
            Ok(probes) => probes,
            Err(wait) => {
                self.counts().count(Outcome::LeftAlone);
                let text =
                    format!("{what}: not asked: {} did not answer, and is left alone for now", self.name);
                let error = SourceError::new(SourceErrorKind::Unavailable, text).to_be_retried_after(wait);
                return Err(error.unreachable());
            }
        };
        // From here on, whoever is dropped gives the probe back.
        let mut admission = Admission { host: self.clone(), kind, probes, sent: None, permit: None };
        match timeout_at(deadline, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => admission.permit = Some(permit),
            Ok(Err(_)) | Err(_) => {
                self.counts().count(Outcome::Crowded);
                let most = self.limits.concurrent;
                let text = format!("{what}: not asked: {most} requests to {} are on their way", self.name);
                return Err(SourceError::new(SourceErrorKind::Unavailable, text).to_be_retried_after(SILENCE));
            }
        }
        admission.sent = Some(Instant::now());
        Ok(admission)
    }

    /// Until when it wants to be asked nothing of the kind, and whether that is for a limit.
    fn held(&self, kind: &Kind, now: Instant) -> Option<(Instant, bool)> {
        let state = self.state();
        let everything = Kind::everything();
        let holds = state.holds.iter().filter(|hold| hold.until > now);
        let found = holds.filter(|hold| hold.kind == *kind || hold.kind == everything);
        found.max_by_key(|hold| hold.until).map(|hold| (hold.until, hold.kind != everything))
    }

    /// Whether its breaker lets a request through, as a probe or as any other; else for how long it does not.
    fn pass(&self, now: Instant) -> Result<bool, Duration> {
        let mut state = self.state();
        let Some(breaker) = &mut state.breaker else { return Ok(false) };
        if breaker.is_closed() {
            return Ok(false);
        }
        if breaker.try_probe(now.into_std()) {
            return Ok(true);
        }
        let due = breaker.probe_at().map(Instant::from_std);
        Err(due.map_or(Duration::from_secs(1), |due| due.saturating_duration_since(now)))
    }

    /// How long to wait before the same is asked again, where it is worth it; that was done `made` times already.
    pub(in crate::registry) fn retry(&self, made: u32, chance: f64) -> Option<Duration> {
        let wait = self.state().retries.spend(made, chance)?;
        self.counts().retried();
        Some(wait)
    }

    fn answered(&self, kind: &Kind, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let clock = Timestamp::now();
        let (told, said) = (status::retry_after(headers, clock), quota(headers, clock));
        let asked = kind;
        let kind = match status {
            StatusCode::SERVICE_UNAVAILABLE => Kind::everything(),
            // A quota is one of pulls, whichever answer speaks of it.
            StatusCode::TOO_MANY_REQUESTS => kind.clone(),
            _ => Kind { is_pull: true, ..kind.clone() },
        };
        let mut state = self.state();
        if let Some(breaker) = &mut state.breaker {
            breaker.succeeded();
        }
        if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
            state.retries.earn();
        }
        let before = state.holds.iter().find(|hold| hold.kind == kind).map(|hold| hold.length);
        let hold = hold(status, told, said.as_ref(), before, self.limits.longest_hold);
        if let Some(length) = hold {
            state.holds.retain(|other| other.kind != kind);
            if state.holds.len() >= MAX_HOLDS {
                state.holds.remove(0);
            }
            tracing::info!(host = %self.name, ?length, %status, "a registry wants to be left alone for a while");
            state.holds.push(Hold { kind, until: now + length, length });
        } else if status.is_success() {
            // It is over, and the next one is the first again: of what was asked, and of nothing else.
            state.holds.retain(|other| other.kind != *asked || other.until > now);
        }
        state.quota = said.or(state.quota);
    }

    fn silent(&self, now: Instant) {
        let mut state = self.state();
        let Some(breaker) = &mut state.breaker else { return };
        let was_closed = breaker.is_closed();
        breaker.failed(now.into_std(), (self.limits.chance)());
        if was_closed && !breaker.is_closed() {
            tracing::warn!(host = %self.name, "a registry does not answer: it is left alone for a while");
        }
    }

    pub(super) fn report(&self, now: Instant) -> HostReport {
        let state = self.state();
        let most = self.limits.concurrent.min(Semaphore::MAX_PERMITS);
        let held_until = state.holds.iter().map(|hold| hold.until).filter(|until| *until > now).max();
        HostReport {
            left_alone: state.breaker.as_ref().is_some_and(|breaker| !breaker.is_closed()),
            in_flight: most.saturating_sub(self.permits.available_permits()),
            quota: state.quota,
            held_for: held_until.map(|until| until.saturating_duration_since(now)),
            ..self.counts().report(Some(self.name.clone()))
        }
    }
}

impl Kind {
    /// Whoever asks, and whatever.
    fn everything() -> Self {
        Self { account: "*".into(), is_pull: true }
    }
}

/// Leave to ask a host one thing. Whoever drops it without an answer has given up.
#[derive(Debug)]
pub(in crate::registry) struct Admission {
    host: Arc<Host>,
    kind: Kind,
    probes: bool,
    sent: Option<Instant>,
    permit: Option<OwnedSemaphorePermit>,
}

/// What is held for as long as a body is received.
#[derive(Debug)]
pub(in crate::registry) struct Receiving {
    counts: Arc<Counts>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Receiving {
    pub(in crate::registry) fn count(&self, bytes: usize) {
        self.counts.received(bytes as u64);
    }
}

impl Admission {
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// The host answered, which is counted in `counts`; what is given back is to be held while the body is received.
    pub(super) fn answered(
        mut self,
        status: StatusCode,
        headers: &HeaderMap,
        counts: Arc<Counts>,
    ) -> Receiving {
        self.sent = None;
        self.probes = false;
        self.host.answered(&self.kind, status, headers, Instant::now());
        counts.count(Outcome::of(status));
        // A refusal may be kept until another way was tried, which needs a permit of its own.
        let _permit = self.permit.take().filter(|_| status.is_success());
        Receiving { counts, _permit }
    }

    /// What is sent takes as long as it takes: who gives up in the middle of it says nothing about the host.
    pub(in crate::registry) fn sending(mut self) -> Self {
        self.sent = None;
        self
    }

    /// It did not; `patient` says whether it was given time to.
    pub(in crate::registry) fn failed(mut self, error: &SourceError, patient: bool) {
        let outcome =
            if error.kind() == SourceErrorKind::TimedOut { Outcome::TimedOut } else { Outcome::Unreachable };
        self.host.counts().count(outcome);
        if is_silence(error) && (patient || error.is_unreachable()) {
            self.sent = None;
            self.probes = false;
            self.host.silent(Instant::now());
        } else {
            self.sent = None;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.sent.is_some_and(|sent| now.saturating_duration_since(sent) >= SILENCE) {
            self.host.silent(now);
        } else if self.probes
            && let Some(breaker) = &mut self.host.state().breaker
        {
            breaker.abandoned(now.into_std());
        }
    }
}
