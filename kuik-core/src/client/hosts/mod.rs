//! Per-host circuit breakers, rate limits, retry budgets and counters.
//!
//! A host is any authority that receives requests: a registry, its token endpoint, the storage it redirects to. State
//! is kept in memory for at most [`MAX_HOSTS`] hosts.

pub(super) mod corrupt_sources;
mod counters;
mod host;
mod metrics;
mod quota;
mod rate_limit;
mod retry;

use std::{
    hash::{BuildHasher as _, RandomState},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, StatusCode, Uri};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

pub(super) use self::host::{BodyPermit, RateLimitKey};
use self::{
    counters::Counts,
    host::{Host, RequestPermit},
};
pub use self::{
    counters::{HostReport, Outcome},
    quota::Quota,
    retry::RetryOptions,
};
use super::transport::guard::Guard;
use crate::failover::BreakerOptions;

/// The maximum number of hosts with state.
const MAX_HOSTS: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

/// Limits for each host.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct HostLimits {
    /// Concurrent requests, including response bodies: 100.
    pub concurrent: usize,
    /// The circuit breaker for unresponsive hosts: opens after 5 consecutive failures, for 1 s at first and at most 10
    /// s. `None` disables it.
    pub breaker: Option<BreakerOptions>,
    /// Retries of requests that failed at the last upstream.
    pub retries: RetryOptions,
    /// The longest pause that a host can ask for: 1 h.
    pub longest_pause: Duration,
    /// The source of random numbers from 0 to 1.
    pub chance: fn() -> f64,
}

impl Default for HostLimits {
    fn default() -> Self {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(10));
        Self {
            concurrent: 100,
            breaker: Some(BreakerOptions { failures: 5, first, longest }),
            retries: RetryOptions::default(),
            longest_pause: Duration::from_secs(3600),
            chance: any_chance,
        }
    }
}

impl HostLimits {
    /// No limits: for a host that is protected elsewhere.
    #[must_use]
    pub fn none() -> Self {
        let retries = RetryOptions { attempts: 0, ..RetryOptions::default() };
        let longest_pause = Duration::ZERO;
        Self { concurrent: usize::MAX, breaker: None, retries, longest_pause, ..Self::default() }
    }
}

/// Returns a random number from 0 to 1; not of cryptographic quality.
fn any_chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

/// All hosts.
#[derive(Debug)]
pub(super) struct Hosts {
    limits: HostLimits,
    guard: Guard,
    known: Mutex<LruCache<Box<str>, Known>>,
    /// Counters of the hosts without a report of their own.
    others: Arc<Counts>,
}

#[derive(Debug)]
struct Known {
    host: Arc<Host>,
    /// Its own counters, if it is reported by name.
    own: Option<Arc<Counts>>,
}

impl Hosts {
    pub(super) fn new(limits: HostLimits, guard: Guard) -> Self {
        Self { limits, guard, known: Mutex::new(LruCache::new(MAX_HOSTS)), others: Arc::default() }
    }

    pub(super) fn chance(&self) -> f64 {
        (self.limits.chance)()
    }

    /// Returns the host of a URL.
    pub(super) fn of(&self, uri: &Uri) -> Arc<Host> {
        let name = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let mut known = self.known.lock();
        if let Some(found) = known.get(name) {
            return found.host.clone();
        }
        let host = Arc::new(Host::new(name.into(), self.limits, self.others.clone()));
        if let Some((_, gone)) = known.push(name.into(), Known { host: host.clone(), own: None })
            && let Some(own) = gone.own
        {
            self.others.absorb(&own);
        }
        if self.guard.names(uri) {
            self.count_apart(&mut known, name);
        }
        host
    }

    /// Records a response, which shows that the host exists. Hold the returned permit while the body is received.
    pub(super) fn answered(
        &self,
        permit: RequestPermit,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> BodyPermit {
        let mut known = self.known.lock();
        self.count_apart(&mut known, &permit.host().name);
        drop(known);
        let counts = permit.host().counts();
        permit.answered(status, headers, counts)
    }

    fn count_apart(&self, known: &mut LruCache<Box<str>, Known>, name: &str) {
        if known.peek(name).is_none_or(|found| found.own.is_some())
            || known.iter().filter(|(_, other)| other.own.is_some()).count() >= counters::MAX_NAMED
        {
            return;
        }
        if let Some(found) = known.peek_mut(name) {
            let own = Arc::new(Counts::default());
            found.host.count_in(own.clone());
            found.own = Some(own);
        }
    }

    /// Returns the reports of all named hosts, sorted by name, followed by the sum of the others.
    pub(super) fn report(&self) -> Vec<HostReport> {
        let now = Instant::now();
        let known = self.known.lock();
        let named = known.iter().filter(|(_, found)| found.own.is_some());
        let mut reports: Vec<_> = named.map(|(_, found)| found.host.report(now)).collect();
        drop(known);
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        reports.push(self.others.report(None));
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{SourceError, SourceErrorKind};

    fn hosts(limits: HostLimits) -> Hosts {
        Hosts::new(HostLimits { chance: || 0.0, ..limits }, Guard::default())
    }

    fn uri(host: &str) -> Uri {
        format!("https://{host}/v2/").parse().unwrap()
    }

    fn pull(account: &str) -> RateLimitKey {
        RateLimitKey { account: account.into(), is_pull: true }
    }

    fn head() -> RateLimitKey {
        RateLimitKey { account: "".into(), is_pull: false }
    }

    async fn send(
        hosts: &Hosts,
        key: RateLimitKey,
        status: u16,
        headers: &HeaderMap,
    ) -> Result<(), SourceErrorKind> {
        let host = hosts.of(&uri("registry.test"));
        let permit = host.admit("ask", key, Instant::now() + Duration::from_secs(1)).await;
        let permit = permit.map_err(|error| error.kind())?;
        drop(hosts.answered(permit, StatusCode::from_u16(status).unwrap(), headers));
        Ok(())
    }

    async fn fail(hosts: &Hosts) -> Option<Duration> {
        let host = hosts.of(&uri("registry.test"));
        match host.admit("ask", head(), Instant::now() + Duration::from_secs(1)).await {
            Ok(permit) => {
                let error = SourceError::new(SourceErrorKind::Unavailable, "no connection").unreachable();
                permit.failed(&error, true);
                None
            }
            Err(error) => error.retry_after(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_opens_after_repeated_silence_and_admits_one_probe() {
        let hosts = hosts(HostLimits::default());
        for _ in 0..5 {
            assert_eq!(fail(&hosts).await, None);
        }
        assert_eq!(fail(&hosts).await, Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        let host = hosts.of(&uri("registry.test"));
        let deadline = Instant::now() + Duration::from_secs(1);
        let probe = host.admit("ask", head(), deadline).await.unwrap();
        assert!(host.admit("ask", head(), deadline).await.is_err(), "only one probe is admitted");
        drop(probe);
        let probe = host.admit("ask", head(), deadline).await.unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(probe);
        assert!(
            host.admit("ask", head(), deadline).await.is_err(),
            "no response for two seconds: still unresponsive"
        );
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(
            send(&hosts, head(), 503, &HeaderMap::new()).await,
            Ok(()),
            "any response closes the breaker"
        );
        assert_eq!(send(&hosts, head(), 200, &HeaderMap::new()).await, Ok(()));
        assert!(!hosts.report()[0].circuit_open);
    }

    #[tokio::test(start_paused = true)]
    async fn canceled_upload_does_not_count_against_the_host() {
        let hosts = hosts(HostLimits::default());
        let host = hosts.of(&uri("registry.test"));
        for _ in 0..10 {
            let deadline = Instant::now() + Duration::from_secs(1);
            let upload = host.admit("ask", head(), deadline).await.unwrap().for_upload();
            tokio::time::advance(Duration::from_secs(60)).await;
            drop(upload);
        }
        assert!(!hosts.report()[0].circuit_open);
    }

    #[tokio::test(start_paused = true)]
    async fn rate_limited_requests_wait_for_the_end_of_the_window() {
        let hosts = hosts(HostLimits::default());
        let retry = HeaderMap::from_iter([(http::header::RETRY_AFTER, "60".parse().unwrap())]);
        assert_eq!(send(&hosts, pull("one"), 429, &retry).await, Ok(()));
        assert_eq!(send(&hosts, pull("one"), 200, &retry).await, Err(SourceErrorKind::RateLimited));
        // Limits are per account, and a HEAD is not counted as a pull.
        assert_eq!(send(&hosts, pull("two"), 200, &HeaderMap::new()).await, Ok(()));
        assert_eq!(
            send(&hosts, RateLimitKey { is_pull: false, ..pull("one") }, 200, &HeaderMap::new()).await,
            Ok(())
        );
        assert_eq!(hosts.report()[0].paused_for, Some(Duration::from_secs(60)));
        tokio::time::advance(Duration::from_secs(60)).await;
        // A limit without `Retry-After` doubles the last wait.
        assert_eq!(send(&hosts, pull("one"), 429, &HeaderMap::new()).await, Ok(()));
        tokio::time::advance(Duration::from_secs(119)).await;
        assert_eq!(
            send(&hosts, pull("one"), 200, &HeaderMap::new()).await,
            Err(SourceErrorKind::RateLimited)
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(send(&hosts, pull("one"), 200, &HeaderMap::new()).await, Ok(()));
        // A 503 applies to every account.
        assert_eq!(send(&hosts, head(), 503, &retry).await, Ok(()));
        assert_eq!(
            send(&hosts, pull("two"), 200, &HeaderMap::new()).await,
            Err(SourceErrorKind::Unavailable)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn success_ends_the_limit_of_its_own_kind_only() {
        let hosts = hosts(HostLimits::default());
        let none = HeaderMap::new();
        for _ in 0..3 {
            assert_eq!(send(&hosts, head(), 429, &none).await, Ok(()));
            assert_eq!(
                hosts.report()[0].paused_for,
                Some(Duration::from_secs(10)),
                "the wait starts again at the first step"
            );
            tokio::time::advance(Duration::from_secs(10)).await;
            assert_eq!(send(&hosts, head(), 200, &none).await, Ok(()));
        }
        assert_eq!(send(&hosts, pull(""), 429, &none).await, Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(send(&hosts, head(), 200, &none).await, Ok(()));
        assert_eq!(send(&hosts, pull(""), 429, &none).await, Ok(()));
        let again = hosts.report()[0].paused_for;
        assert_eq!(again, Some(Duration::from_secs(20)), "a HEAD does not end the limit of pulls");
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_are_limited() {
        let hosts = hosts(HostLimits { concurrent: 1, ..HostLimits::default() });
        let host = hosts.of(&uri("registry.test"));
        let deadline = Instant::now() + Duration::from_secs(1);
        let first = host.admit("ask", head(), deadline).await.unwrap();
        let body = hosts.answered(first, StatusCode::OK, &HeaderMap::new());
        assert_eq!(hosts.report()[0].in_flight, 1);
        let refused = host.admit("ask", head(), deadline).await.unwrap_err();
        assert_eq!((refused.kind(), refused.is_unreachable()), (SourceErrorKind::Unavailable, false));
        drop(body);
        assert!(host.admit("ask", head(), Instant::now() + Duration::from_secs(1)).await.is_ok());
    }

    #[tokio::test]
    async fn number_of_reports_is_bounded() {
        let hosts = hosts(HostLimits::default());
        for n in 0..2 * counters::MAX_NAMED {
            let host = hosts.of(&uri(&format!("r{n}.test")));
            host.admit("ask", head(), Instant::now() + Duration::from_secs(1))
                .await
                .unwrap()
                .failed(&SourceError::new(SourceErrorKind::Unavailable, "no such host").unreachable(), true);
        }
        assert_eq!(hosts.report().len(), 1, "no host has responded");
        let mut counted = 0;
        for n in 0..1000 {
            let host = hosts.of(&uri(&format!("s{n}.test")));
            let permit = host.admit("ask", head(), Instant::now() + Duration::from_secs(1)).await.unwrap();
            drop(hosts.answered(permit, StatusCode::OK, &HeaderMap::new()));
            counted += 1;
        }
        let reports = hosts.report();
        assert!(reports.len() <= counters::MAX_NAMED + 1);
        let answered: u64 = reports.iter().map(|report| report.outcomes[Outcome::Answered as usize].1).sum();
        assert_eq!(answered, counted, "no count is lost when a host is evicted");
    }
}
