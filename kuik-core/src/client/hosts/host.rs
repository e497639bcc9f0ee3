//! Per-host circuit breaker, rate limits and concurrency limit.
//!
//! Only unresponsiveness opens the breaker: a host that responds, with any status, causes no wait. Rate limits are kept
//! per account and kind of request, because registries count that way: Docker Hub counts the manifests that an account
//! pulls, and neither `HEAD`s nor blobs.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    HostLimits, Quota,
    counters::{Counts, HostReport, Outcome},
    quota::quota,
    rate_limit::pause,
    retry::RetryBudget,
};
use crate::{
    client::api::status,
    content::{SourceError, SourceErrorKind},
    failover::{Breaker, is_unresponsive},
};

/// How long a canceled request must have waited before it counts against its host.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(2);
/// The maximum number of rate limit windows per host.
const MAX_WINDOWS: usize = 64;

/// Key of a rate limit: registries count by account and kind of request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::client) struct RateLimitKey {
    /// The account, as its registry knows it; empty for anonymous.
    pub(in crate::client) account: Arc<str>,
    /// Whether it counts as a pull: a `GET` of a manifest.
    pub(in crate::client) is_pull: bool,
}

#[derive(Debug)]
pub(in crate::client) struct Host {
    pub(super) name: Arc<str>,
    limits: HostLimits,
    permits: Arc<Semaphore>,
    counts: Mutex<Arc<Counts>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    breaker: Option<Breaker>,
    windows: Vec<RateLimitWindow>,
    retries: RetryBudget,
    quota: Option<Quota>,
}

#[derive(Debug)]
struct RateLimitWindow {
    key: RateLimitKey,
    until: Instant,
    length: Duration,
}

impl Host {
    /// Returns a host with a closed breaker. It counts in `counts` until it has its own counters.
    pub(super) fn new(name: Arc<str>, limits: HostLimits, counts: Arc<Counts>) -> Self {
        let state = State {
            breaker: limits.breaker.map(Breaker::new),
            windows: Vec::new(),
            retries: RetryBudget::new(limits.retries),
            quota: None,
        };
        let permits = Arc::new(Semaphore::new(limits.concurrent.min(Semaphore::MAX_PERMITS)));
        Self { name, limits, permits, counts: Mutex::new(counts), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        self.counts.lock().clone()
    }

    /// Counts in these counters from now on.
    pub(super) fn count_in(&self, counts: Arc<Counts>) {
        *self.counts.lock() = counts;
    }

    /// Acquires a permit for one request by `deadline`; `what` describes the request.
    ///
    /// # Errors
    /// Returns `RateLimited` or `Unavailable`, with the time to wait, if the request must not be sent now.
    pub(in crate::client) async fn admit(
        self: &Arc<Self>,
        what: &str,
        key: RateLimitKey,
        deadline: Instant,
    ) -> Result<RequestPermit, SourceError> {
        let now = Instant::now();
        if let Some((until, limited)) = self.paused(&key, now) {
            self.counts().count(Outcome::RateLimited);
            let wait = until.saturating_duration_since(now);
            let text = format!(
                "{what}: not sent: pausing requests to {} for {} s more",
                self.name,
                wait.as_secs().max(1)
            );
            let kind = if limited { SourceErrorKind::RateLimited } else { SourceErrorKind::Unavailable };
            return Err(SourceError::new(kind, text).to_be_retried_after(wait));
        }
        let probes = match self.admit_by_breaker(now) {
            Ok(probes) => probes,
            Err(wait) => {
                self.counts().count(Outcome::CircuitOpen);
                let text = format!("{what}: not sent: {} is unresponsive, circuit breaker open", self.name);
                let error = SourceError::new(SourceErrorKind::Unavailable, text).to_be_retried_after(wait);
                return Err(error.unreachable());
            }
        };
        // From here on, dropping the permit returns the probe.
        let mut request_permit = RequestPermit { host: self.clone(), key, probes, sent: None, permit: None };
        match timeout_at(deadline, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => request_permit.permit = Some(permit),
            Ok(Err(_)) | Err(_) => {
                self.counts().count(Outcome::Saturated);
                let most = self.limits.concurrent;
                let text = format!("{what}: not sent: {most} requests to {} are in flight", self.name);
                return Err(SourceError::new(SourceErrorKind::Unavailable, text)
                    .to_be_retried_after(UNRESPONSIVE_AFTER));
            }
        }
        request_permit.sent = Some(Instant::now());
        Ok(request_permit)
    }

    /// Returns the end of the pause for this kind of request, and whether it is due to a rate limit.
    fn paused(&self, key: &RateLimitKey, now: Instant) -> Option<(Instant, bool)> {
        let state = self.state();
        let everything = RateLimitKey::everything();
        let windows = state.windows.iter().filter(|window| window.until > now);
        let found = windows.filter(|window| window.key == *key || window.key == everything);
        found.max_by_key(|window| window.until).map(|window| (window.until, window.key != everything))
    }

    /// Returns whether the breaker admits the request as a probe (`true`) or regularly; otherwise the time to wait.
    fn admit_by_breaker(&self, now: Instant) -> Result<bool, Duration> {
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

    /// Returns the wait before the next retry if the budget allows one; `retries` is the number of retries so far.
    pub(in crate::client) fn retry(&self, retries: u32, chance: f64) -> Option<Duration> {
        let wait = self.state().retries.spend(retries, chance)?;
        self.counts().retried();
        Some(wait)
    }

    fn answered(&self, key: &RateLimitKey, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let clock = Timestamp::now();
        let (retry_after, reported) = (status::retry_after(headers, clock), quota(headers, clock));
        let requested = key;
        let key = match status {
            StatusCode::SERVICE_UNAVAILABLE => RateLimitKey::everything(),
            // A quota is about pulls, regardless of which response reports it.
            StatusCode::TOO_MANY_REQUESTS => key.clone(),
            _ => RateLimitKey { is_pull: true, ..key.clone() },
        };
        let mut state = self.state();
        if let Some(breaker) = &mut state.breaker {
            breaker.succeeded();
        }
        if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
            state.retries.earn();
        }
        let before = state.windows.iter().find(|window| window.key == key).map(|window| window.length);
        let pause = pause(status, retry_after, reported.as_ref(), before, self.limits.longest_pause);
        if let Some(length) = pause {
            state.windows.retain(|other| other.key != key);
            if state.windows.len() >= MAX_WINDOWS {
                state.windows.remove(0);
            }
            tracing::info!(host = %self.name, ?length, %status, "upstream requested to wait, pausing requests");
            state.windows.push(RateLimitWindow { key, until: now + length, length });
        } else if status.is_success() {
            // The limit is over, so the next one starts at the first step again: for the kind of this request only.
            state.windows.retain(|other| other.key != *requested || other.until > now);
        }
        state.quota = reported.or(state.quota);
    }

    fn unresponsive(&self, now: Instant) {
        let mut state = self.state();
        let Some(breaker) = &mut state.breaker else { return };
        let was_closed = breaker.is_closed();
        breaker.failed(now.into_std(), (self.limits.chance)());
        if was_closed && !breaker.is_closed() {
            tracing::warn!(host = %self.name, "registry is unresponsive, circuit breaker opened");
        }
    }

    pub(super) fn report(&self, now: Instant) -> HostReport {
        let state = self.state();
        let most = self.limits.concurrent.min(Semaphore::MAX_PERMITS);
        let paused_until = state.windows.iter().map(|window| window.until).filter(|until| *until > now).max();
        HostReport {
            circuit_open: state.breaker.as_ref().is_some_and(|breaker| !breaker.is_closed()),
            in_flight: most.saturating_sub(self.permits.available_permits()),
            quota: state.quota,
            paused_for: paused_until.map(|until| until.saturating_duration_since(now)),
            ..self.counts().report(Some(self.name.clone()))
        }
    }
}

impl RateLimitKey {
    /// Any account, any kind of request.
    fn everything() -> Self {
        Self { account: "*".into(), is_pull: true }
    }
}

/// Permit for one request to a host. Dropping it before a response counts as a cancellation.
#[derive(Debug)]
pub(in crate::client) struct RequestPermit {
    host: Arc<Host>,
    key: RateLimitKey,
    probes: bool,
    sent: Option<Instant>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Permit that is held while a body is received.
#[derive(Debug)]
pub(in crate::client) struct BodyPermit {
    counts: Arc<Counts>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl BodyPermit {
    pub(in crate::client) fn count(&self, bytes: usize) {
        self.counts.received(bytes as u64);
    }
}

impl RequestPermit {
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// The host responded, which is counted in `counts`. Hold the returned permit while the body is received.
    pub(super) fn answered(
        mut self,
        status: StatusCode,
        headers: &HeaderMap,
        counts: Arc<Counts>,
    ) -> BodyPermit {
        self.sent = None;
        self.probes = false;
        self.host.answered(&self.key, status, headers, Instant::now());
        counts.count(Outcome::of(status));
        // A refusal may be held while another method is tried, which needs a permit of its own.
        let _permit = self.permit.take().filter(|_| status.is_success());
        BodyPermit { counts, _permit }
    }

    /// Marks the request as an upload, whose duration is unbounded: canceling it does not count against the host.
    pub(in crate::client) fn for_upload(mut self) -> Self {
        self.sent = None;
        self
    }

    /// The request failed. `patient` tells whether it had enough time to count against the host.
    pub(in crate::client) fn failed(mut self, error: &SourceError, patient: bool) {
        let outcome =
            if error.kind() == SourceErrorKind::TimedOut { Outcome::TimedOut } else { Outcome::Unreachable };
        self.host.counts().count(outcome);
        if is_unresponsive(error) && (patient || error.is_unreachable()) {
            self.sent = None;
            self.probes = false;
            self.host.unresponsive(Instant::now());
        } else {
            self.sent = None;
        }
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.sent.is_some_and(|sent| now.saturating_duration_since(sent) >= UNRESPONSIVE_AFTER) {
            self.host.unresponsive(now);
        } else if self.probes
            && let Some(breaker) = &mut self.host.state().breaker
        {
            breaker.abandoned(now.into_std());
        }
    }
}
