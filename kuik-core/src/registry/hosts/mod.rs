//! The hosts that are asked, each with what is known about it: whether it answers, what it wants to be spared, how many
//! requests to it are on their way.
//!
//! A host is whatever a request is sent to: a registry, its token endpoint, the storage that it redirects to. What is
//! known is kept in memory, for [`MAX_HOSTS`] of them.

mod counts;
mod hold;
mod host;
mod quota;
mod retry;

use std::{
    hash::{BuildHasher as _, RandomState},
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode, Uri};
use lru::LruCache;
use tokio::time::Instant;

pub(super) use self::host::{Kind, Receiving};
use self::{
    counts::Counts,
    host::{Admission, Host},
};
pub use self::{
    counts::{HostReport, Outcome},
    quota::Quota,
    retry::RetryOptions,
};
use super::guard::Guard;
use crate::failover::BreakerOptions;

/// Of how many hosts something is known at one time.
const MAX_HOSTS: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

/// What each host is spared.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct HostLimits {
    /// How many requests may be on their way to it at one time, the bodies of their answers included: 100.
    pub concurrent: usize,
    /// When it is left alone because it does not answer: after 5 times in a row, for 1 s at first and 10 s at most.
    /// `None` for never.
    pub breaker: Option<BreakerOptions>,
    /// When a request is made again that failed at the last upstream that there is.
    pub retries: RetryOptions,
    /// For how long it is left alone at most, whatever it says: 1 h.
    pub longest_hold: Duration,
    /// Where chance comes from: a number from 0 to 1.
    pub chance: fn() -> f64,
}

impl Default for HostLimits {
    fn default() -> Self {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(10));
        Self {
            concurrent: 100,
            breaker: Some(BreakerOptions { failures: 5, first, longest }),
            retries: RetryOptions::default(),
            longest_hold: Duration::from_secs(3600),
            chance: any_chance,
        }
    }
}

impl HostLimits {
    /// No limits: for a host that somebody else looks after.
    #[must_use]
    pub fn none() -> Self {
        let retries = RetryOptions { attempts: 0, ..RetryOptions::default() };
        let longest_hold = Duration::ZERO;
        Self { concurrent: usize::MAX, breaker: None, retries, longest_hold, ..Self::default() }
    }
}

/// A random number from 0 to 1, which need not be a good one.
fn any_chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

/// All hosts.
#[derive(Debug)]
pub(super) struct Hosts {
    limits: HostLimits,
    guard: Guard,
    known: Mutex<LruCache<Box<str>, Known>>,
    /// Those that have no report of their own.
    others: Arc<Counts>,
}

#[derive(Debug)]
struct Known {
    host: Arc<Host>,
    /// Where it is counted apart from the others.
    own: Option<Arc<Counts>>,
}

impl Hosts {
    pub(super) fn new(limits: HostLimits, guard: Guard) -> Self {
        Self { limits, guard, known: Mutex::new(LruCache::new(MAX_HOSTS)), others: Arc::default() }
    }

    pub(super) fn chance(&self) -> f64 {
        (self.limits.chance)()
    }

    /// The host of an address.
    pub(super) fn of(&self, uri: &Uri) -> Arc<Host> {
        let name = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// A host that answered has shown that it exists. What is given back is to be held while the body is received.
    pub(super) fn answered(
        &self,
        admission: Admission,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Receiving {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.count_apart(&mut known, &admission.host().name);
        drop(known);
        let counts = admission.host().counts();
        admission.answered(status, headers, counts)
    }

    fn count_apart(&self, known: &mut LruCache<Box<str>, Known>, name: &str) {
        if known.peek(name).is_none_or(|found| found.own.is_some())
            || known.iter().filter(|(_, other)| other.own.is_some()).count() >= counts::MAX_NAMED
        {
            return;
        }
        if let Some(found) = known.peek_mut(name) {
            let own = Arc::new(Counts::default());
            found.host.count_in(own.clone());
            found.own = Some(own);
        }
    }

    /// What was seen of all of them, in the order of their names; those together that have no report of their own last.
    pub(super) fn report(&self) -> Vec<HostReport> {
        let now = Instant::now();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn pull(account: &str) -> Kind {
        Kind { account: account.into(), is_pull: true }
    }

    fn look() -> Kind {
        Kind { account: "".into(), is_pull: false }
    }

    async fn ask(hosts: &Hosts, kind: Kind, status: u16, headers: &HeaderMap) -> Result<(), SourceErrorKind> {
        let host = hosts.of(&uri("registry.test"));
        let admission = host.admit("ask", kind, Instant::now() + Duration::from_secs(1)).await;
        let admission = admission.map_err(|error| error.kind())?;
        drop(hosts.answered(admission, StatusCode::from_u16(status).unwrap(), headers));
        Ok(())
    }

    async fn fail(hosts: &Hosts) -> Option<Duration> {
        let host = hosts.of(&uri("registry.test"));
        match host.admit("ask", look(), Instant::now() + Duration::from_secs(1)).await {
            Ok(admission) => {
                let error = SourceError::new(SourceErrorKind::Unavailable, "no connection").unreachable();
                admission.failed(&error, true);
                None
            }
            Err(error) => error.retry_after(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_again_and_again_is_left_alone_and_asked_once_whether_it_is_back() {
        let hosts = hosts(HostLimits::default());
        for _ in 0..5 {
            assert_eq!(fail(&hosts).await, None);
        }
        assert_eq!(fail(&hosts).await, Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        let host = hosts.of(&uri("registry.test"));
        let deadline = Instant::now() + Duration::from_secs(1);
        let probe = host.admit("ask", look(), deadline).await.unwrap();
        assert!(host.admit("ask", look(), deadline).await.is_err(), "one probe is enough");
        drop(probe);
        let probe = host.admit("ask", look(), deadline).await.unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(probe);
        assert!(
            host.admit("ask", look(), deadline).await.is_err(),
            "nothing came for two seconds: it is still away"
        );
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(
            ask(&hosts, look(), 503, &HeaderMap::new()).await,
            Ok(()),
            "whatever it says, it is there"
        );
        assert_eq!(ask(&hosts, look(), 200, &HeaderMap::new()).await, Ok(()));
        assert!(!hosts.report()[0].left_alone);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_is_given_up_says_nothing_about_the_host() {
        let hosts = hosts(HostLimits::default());
        let host = hosts.of(&uri("registry.test"));
        for _ in 0..10 {
            let deadline = Instant::now() + Duration::from_secs(1);
            let upload = host.admit("ask", look(), deadline).await.unwrap().sending();
            tokio::time::advance(Duration::from_secs(60)).await;
            drop(upload);
        }
        assert!(!hosts.report()[0].left_alone);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_limited_is_not_asked_until_it_may_be() {
        let hosts = hosts(HostLimits::default());
        let retry = HeaderMap::from_iter([(http::header::RETRY_AFTER, "60".parse().unwrap())]);
        assert_eq!(ask(&hosts, pull("one"), 429, &retry).await, Ok(()));
        assert_eq!(ask(&hosts, pull("one"), 200, &retry).await, Err(SourceErrorKind::RateLimited));
        // Another account has its own limit, and who only looks is not counted.
        assert_eq!(ask(&hosts, pull("two"), 200, &HeaderMap::new()).await, Ok(()));
        assert_eq!(ask(&hosts, Kind { is_pull: false, ..pull("one") }, 200, &HeaderMap::new()).await, Ok(()));
        assert_eq!(hosts.report()[0].held_for, Some(Duration::from_secs(60)));
        tokio::time::advance(Duration::from_secs(60)).await;
        // It says so again, and not for how long.
        assert_eq!(ask(&hosts, pull("one"), 429, &HeaderMap::new()).await, Ok(()));
        tokio::time::advance(Duration::from_secs(119)).await;
        assert_eq!(ask(&hosts, pull("one"), 200, &HeaderMap::new()).await, Err(SourceErrorKind::RateLimited));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ask(&hosts, pull("one"), 200, &HeaderMap::new()).await, Ok(()));
        // "Not now" is meant for everybody.
        assert_eq!(ask(&hosts, look(), 503, &retry).await, Ok(()));
        assert_eq!(ask(&hosts, pull("two"), 200, &HeaderMap::new()).await, Err(SourceErrorKind::Unavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_answer_ends_what_was_limited_of_its_kind_alone() {
        let hosts = hosts(HostLimits::default());
        let none = HeaderMap::new();
        for _ in 0..3 {
            assert_eq!(ask(&hosts, look(), 429, &none).await, Ok(()));
            assert_eq!(
                hosts.report()[0].held_for,
                Some(Duration::from_secs(10)),
                "it is the first each time"
            );
            tokio::time::advance(Duration::from_secs(10)).await;
            assert_eq!(ask(&hosts, look(), 200, &none).await, Ok(()));
        }
        assert_eq!(ask(&hosts, pull(""), 429, &none).await, Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(ask(&hosts, look(), 200, &none).await, Ok(()));
        assert_eq!(ask(&hosts, pull(""), 429, &none).await, Ok(()));
        let again = hosts.report()[0].held_for;
        assert_eq!(again, Some(Duration::from_secs(20)), "who only looked says nothing of pulls");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_on_their_way_and_no_more() {
        let hosts = hosts(HostLimits { concurrent: 1, ..HostLimits::default() });
        let host = hosts.of(&uri("registry.test"));
        let deadline = Instant::now() + Duration::from_secs(1);
        let first = host.admit("ask", look(), deadline).await.unwrap();
        let body = hosts.answered(first, StatusCode::OK, &HeaderMap::new());
        assert_eq!(hosts.report()[0].in_flight, 1);
        let refused = host.admit("ask", look(), deadline).await.unwrap_err();
        assert_eq!((refused.kind(), refused.is_unreachable()), (SourceErrorKind::Unavailable, false));
        drop(body);
        assert!(host.admit("ask", look(), Instant::now() + Duration::from_secs(1)).await.is_ok());
    }

    #[tokio::test]
    async fn names_cannot_make_reports_without_end() {
        let hosts = hosts(HostLimits::default());
        for n in 0..2 * counts::MAX_NAMED {
            let host = hosts.of(&uri(&format!("r{n}.test")));
            host.admit("ask", look(), Instant::now() + Duration::from_secs(1))
                .await
                .unwrap()
                .failed(&SourceError::new(SourceErrorKind::Unavailable, "no such host").unreachable(), true);
        }
        assert_eq!(hosts.report().len(), 1, "none of them has ever answered");
        let mut counted = 0;
        for n in 0..1000 {
            let host = hosts.of(&uri(&format!("s{n}.test")));
            let admission = host.admit("ask", look(), Instant::now() + Duration::from_secs(1)).await.unwrap();
            drop(hosts.answered(admission, StatusCode::OK, &HeaderMap::new()));
            counted += 1;
        }
        let reports = hosts.report();
        assert!(reports.len() <= counts::MAX_NAMED + 1);
        let answered: u64 = reports.iter().map(|report| report.outcomes[Outcome::Answered as usize].1).sum();
        assert_eq!(answered, counted, "nothing is lost when a host is forgotten");
    }
}
