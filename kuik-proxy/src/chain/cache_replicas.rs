//! Cache replicas with failover: each key is requested from its owner, and from the next in rank while the owner is
//! down.
//!
//! Replicas that are down delay the requests that find them so by less than a second in total, and later requests not
//! at all: their circuit breakers are open, and [`CacheReplicas::maintain`] probes in the background whether they are
//! back. A replica is down if it cannot be reached, or if it answers neither the request nor a ping. A replica that
//! answers is up, whatever it answers; a replica that is slow because its upstream is slow is waited for.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{
    StreamExt as _,
    future::{BoxFuture, pending, ready},
    stream::{self, FuturesUnordered},
};
use kuik_core::{
    content::{
        Blob, BlobLocation, ByteRange, Cached, ContentSource, Descriptor, Digest, Freshness, Manifest,
        Referrers, SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    failover::{Breaker, BreakerOptions, OnError, Role, most_actionable},
    reference::RepositoryName,
};
use parking_lot::{Mutex, MutexGuard, RwLock};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    Replicas,
    rank::{manifest_key, rank},
};

/// Number of replicas that one request tries: the owner, and the next in rank.
const MAX_ATTEMPTS: usize = 2;

/// A replica that showed life within this time is more likely busy than dead.
const RECENT: Duration = Duration::from_secs(10);

/// Maximum number of concurrent pings.
const MAX_PINGS: usize = 8;

/// One replica of the cache.
#[async_trait]
pub trait Replica: ContentSource {
    /// Checks that the replica answers at all. It bounds its own wait to connect.
    ///
    /// # Errors
    /// Returns an error if the replica does not answer.
    async fn ping(&self) -> Result<(), SourceError>;
}

/// Makes a [`Replica`] from its name (`HOST:PORT`).
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// Returns the replica called `name`. Nothing is sent yet.
    ///
    /// # Errors
    /// Fails if `name` is not an address to connect to.
    fn connect(&self, name: &str) -> Result<Arc<dyn Replica>, SourceError>;
}

/// Options of [`CacheReplicas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheReplicasOptions {
    /// When a replica's circuit breaker opens, and for how long.
    pub breaker: BreakerOptions,
    /// Interval at which the list of replicas is refreshed: 5 s.
    pub refresh: Duration,
    /// Time after which an unresponsive replica is pinged, and the next in rank with it: 100 ms.
    pub hedge_after: Duration,
    /// Total time a request waits for a sign of life of any replica: 950 ms. Then it continues without them.
    pub response_timeout: Duration,
    /// Replaces `response_timeout` if the owner has shown life within the last ten seconds: 4 s. It is more likely
    /// busy than dead, and all requests that give it up would go upstream.
    pub busy_timeout: Duration,
    /// Time after which a replica that has shown life, and still has not responded, is pinged again: 1 s.
    pub reprobe_after: Duration,
    /// Timeout of the ping that checks whether a replica is back: 3 s.
    pub ping: Duration,
}

impl Default for CacheReplicasOptions {
    fn default() -> Self {
        Self {
            breaker: BreakerOptions::default(),
            refresh: Duration::from_secs(5),
            hedge_after: Duration::from_millis(100),
            response_timeout: Duration::from_millis(950),
            busy_timeout: Duration::from_secs(4),
            reprobe_after: Duration::from_secs(1),
            ping: Duration::from_secs(3),
        }
    }
}

/// A source over the replicas of a cache. Cheap to clone.
///
/// [`CacheReplicas::maintain`] refreshes the list of replicas and probes those that were down. The caller runs it
/// concurrently; until it runs, there are no replicas.
#[derive(Debug, Clone)]
pub struct CacheReplicas {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    replicas: Box<dyn Replicas>,
    connect: Box<dyn Connect>,
    options: CacheReplicasOptions,
    members: RwLock<Arc<[Arc<Member>]>>,
    /// Notified when a breaker has opened: the next probe is due sooner than planned.
    opened: Notify,
    gauges: Gauges,
}

#[derive(Debug, Clone, Default)]
struct Gauges {
    known: Gauge,
    away: Gauge,
}

#[derive(Debug)]
struct Member {
    name: String,
    replica: Arc<dyn Replica>,
    breaker: Mutex<Breaker>,
    /// Time of the last answer of any kind.
    heard: Mutex<Option<Instant>>,
    /// Held during a ping: any number of requests wait for one ping.
    pinging: tokio::sync::Mutex<()>,
}

impl CacheReplicas {
    /// Returns a source over `replicas`, each made by `connect`.
    pub fn new(replicas: impl Replicas, connect: impl Connect, options: CacheReplicasOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                replicas: Box::new(replicas),
                connect: Box::new(connect),
                options,
                members: RwLock::new(Arc::new([])),
                opened: Notify::new(),
                gauges: Gauges::default(),
            }),
        }
    }

    /// Refreshes the list of replicas and probes those that are down, for as long as it is polled. It never ends.
    pub async fn maintain(&self) {
        let mut refresh_at = Instant::now();
        loop {
            if refresh_at <= Instant::now() {
                self.refresh().await;
                refresh_at = Instant::now() + self.shared.options.refresh;
            }
            self.probe().await;
            self.count();
            let due = self
                .members()
                .iter()
                .filter_map(|member| member.breaker().probe_at())
                .min()
                .map(Instant::from_std);
            tokio::select! {
                () = sleep_until(due.map_or(refresh_at, |due| due.min(refresh_at))) => {}
                () = self.shared.opened.notified() => self.count(),
            }
        }
    }

    fn count(&self) {
        let members = self.members();
        let away = members.iter().filter(|member| !member.breaker().is_closed()).count();
        self.shared.gauges.known.set(i64::try_from(members.len()).unwrap_or(i64::MAX));
        self.shared.gauges.away.set(i64::try_from(away).unwrap_or(i64::MAX));
    }

    /// Registers the gauges. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("proxy");
        let Gauges { known, away } = self.shared.gauges.clone();
        registry.register("cache_replicas", "Known replicas of the cache", known);
        registry.register("cache_replicas_away", "Replicas of the cache whose circuit breaker is open", away);
    }

    fn members(&self) -> Arc<[Arc<Member>]> {
        self.shared.members.read().clone()
    }

    /// Refreshes the list of replicas. Replicas that stay keep their breakers.
    async fn refresh(&self) {
        let names = match self.shared.replicas.replicas().await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "failed to look up the cache replicas, keeping the known ones");
                return;
            }
        };
        let before = self.members();
        if before.iter().map(|member| &member.name).eq(&names) {
            return;
        }
        tracing::info!(replicas = ?names, "cache replicas changed");
        let member = |name: String| match before.iter().find(|member| member.name == name) {
            Some(member) => Some(member.clone()),
            None => match self.shared.connect.connect(&name) {
                Ok(replica) => {
                    let breaker = Mutex::new(Breaker::new(self.shared.options.breaker));
                    let (heard, pinging) = Default::default();
                    Some(Arc::new(Member { name, replica, breaker, heard, pinging }))
                }
                Err(error) => {
                    tracing::error!(%name, error = error.chain(), "cannot use a cache replica, skipping it");
                    None
                }
            },
        };
        let members = names.into_iter().filter_map(member).collect();
        *self.shared.members.write() = members;
    }

    /// Pings the replicas whose breakers are due.
    async fn probe(&self) {
        let at = now();
        let due: Vec<_> =
            self.members().iter().filter(|member| member.breaker().try_probe(at)).cloned().collect();
        let limit = self.shared.options.ping;
        stream::iter(due)
            .for_each_concurrent(MAX_PINGS, |member| async move {
                // Dropping this before its end returns the probe to the breaker.
                let probe = Probe(&member);
                let answered = probe.0.pinged(limit).await;
                match answered {
                    Ok(()) => {
                        member.breaker().succeeded();
                        tracing::info!(replica = member.name, "cache replica is back");
                    }
                    Err(_) => member.breaker().failed(now(), chance()),
                }
            })
            .await;
    }

    /// Returns the answer of the first replica in rank that has one.
    async fn first<'a, T>(
        &self,
        key: &str,
        ask: impl Fn(Arc<dyn Replica>) -> BoxFuture<'a, Result<T, SourceError>> + Send,
    ) -> Result<T, SourceError> {
        let members = self.members();
        let mut failure = None;
        let up: Vec<_> = rank(key, members.iter().map(|member| &member.name))
            .filter_map(|at| members.get(at))
            .filter(|member| member.breaker().is_closed())
            .take(MAX_ATTEMPTS)
            .collect();
        let began = Instant::now();
        let mut was_unresponsive = false;
        for (at, member) in up.iter().enumerate() {
            // Replicas ranked after an unresponsive one were pinged with it, successfully or not.
            let is_unresponsive = was_unresponsive && !member.heard_since(began);
            let others = up.get(at + 1..).unwrap_or_default();
            let answer = tokio::select! {
                biased;
                dead = async { member.suspect() }, if is_unresponsive => Err(dead),
                answer = ask(member.replica.clone()) => answer,
                dead = member.found_dead(others, began, &self.shared.options) => {
                    was_unresponsive = true;
                    Err(dead)
                }
            };
            let error = match answer {
                Ok(answer) => {
                    member.hear();
                    member.breaker().succeeded();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if error.is_unreachable() {
                tracing::warn!(
                    replica = member.name,
                    error = error.chain(),
                    "cache replica unreachable, pausing requests"
                );
                member.breaker().failed(now(), chance());
                self.shared.opened.notify_one();
            }
            if Role::Copy.on_error(error.kind()) == OnError::Return {
                return Err(error);
            }
            failure = Some(most_actionable(failure, error));
        }
        Err(failure.unwrap_or_else(|| {
            let attempted = format!("request {key} from the cache: no replica is available");
            SourceError::new(SourceErrorKind::Unavailable, attempted).unreachable()
        }))
    }
}

impl Member {
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock()
    }

    async fn pinged(&self, limit: Duration) -> Result<(), SourceError> {
        timeout(limit, self.replica.ping()).await.unwrap_or_else(|_| {
            let attempted = format!("ping {}: no answer within {limit:?}", self.name);
            Err(SourceError::new(SourceErrorKind::TimedOut, attempted).unreachable())
        })
    }

    fn hear(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    fn heard_since(&self, then: Instant) -> bool {
        self.heard.lock().is_some_and(|heard| heard > then)
    }

    /// Ends when the replica answers neither the request nor a ping. The `others`, which are next in rank, are pinged
    /// with it. The time for its first sign of life counts from when the request `began`, unless it has shown one
    /// since.
    async fn found_dead(
        &self,
        others: &[&Arc<Self>],
        began: Instant,
        options: &CacheReplicasOptions,
    ) -> SourceError {
        let recent = began.checked_sub(RECENT).is_some_and(|then| self.heard_since(then));
        let response_timeout = if recent { options.busy_timeout } else { options.response_timeout };
        let mut deadline = if self.heard_since(began) { Instant::now() } else { began } + response_timeout;
        let mut wait = options.hedge_after;
        loop {
            let since = Instant::now();
            sleep(wait).await;
            let pinging: FuturesUnordered<_> =
                others.iter().map(|other| other.shows_life(since, deadline)).collect();
            // No request waits for the others: they have as long as this one has, and no longer.
            let alive = tokio::select! {
                alive = self.shows_life(since, deadline) => alive,
                () = async { pinging.for_each(|_| ready(())).await; pending().await } => false,
            };
            if !alive {
                return self.suspect();
            }
            wait = options.reprobe_after;
            deadline = Instant::now() + wait + options.busy_timeout;
        }
    }

    /// Whether the replica answers anything from `since` on, or a ping, until `by`. Concurrent callers share one
    /// ping.
    async fn shows_life(&self, since: Instant, by: Instant) -> bool {
        let check = async {
            let _alone = self.pinging.lock().await;
            if self.heard_since(since) {
                return true;
            }
            let answered = self.breaker().is_closed() && self.replica.ping().await.is_ok();
            if answered {
                self.hear();
            }
            answered
        };
        timeout_at(by, check).await.unwrap_or(false)
    }

    /// Opens the breaker until a ping, sent at once and with a longer timeout, succeeds.
    fn suspect(&self) -> SourceError {
        self.breaker().suspected(now());
        let attempted = format!("wait for {}: no response, not even to a ping", self.name);
        SourceError::new(SourceErrorKind::TimedOut, attempted).unreachable()
    }
}

/// The one probe of a breaker.
struct Probe<'a>(&'a Member);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.breaker().abandoned(now());
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// A random number from 0 to 1; it does not have to be a good one.
fn chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentSource for CacheReplicas {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        let ask = |replica: Arc<dyn Replica>| -> BoxFuture<'_, _> {
            Box::pin(async move { replica.resolve(repository, at, freshness).await })
        };
        self.first(&manifest_key(repository, at), ask).await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        let ask = |replica: Arc<dyn Replica>| -> BoxFuture<'_, _> {
            Box::pin(async move { replica.manifest(repository, at, freshness).await })
        };
        self.first(&manifest_key(repository, at), ask).await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        let ask = |replica: Arc<dyn Replica>| -> BoxFuture<'_, _> {
            Box::pin(async move { replica.blob_size(repository, digest).await })
        };
        self.first(digest.as_str(), ask).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        let ask = |replica: Arc<dyn Replica>| -> BoxFuture<'_, _> {
            Box::pin(async move { replica.blob(repository, digest, range).await })
        };
        self.first(digest.as_str(), ask).await
    }

    /// Always `None`: a redirect would name an address inside the cluster.
    async fn blob_location(
        &self,
        _: &RepositoryName,
        _: &Digest,
        _: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        Ok(None)
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        let ask = |replica: Arc<dyn Replica>| -> BoxFuture<'_, _> {
            Box::pin(async move { replica.tags(repository, page).await })
        };
        self.first(&repository.to_string(), ask).await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        let ask = |replica: Arc<dyn Replica>| -> BoxFuture<'_, _> {
            Box::pin(async move { replica.referrers(repository, digest, artifact_type).await })
        };
        self.first(digest.as_str(), ask).await
    }

    /// Reports to every replica: each knows by itself whether it served the blob last.
    fn report_corrupt(&self, repository: &RepositoryName, digest: &Digest) {
        for member in self.members().iter() {
            member.replica.report_corrupt(repository, digest);
        }
    }
}

#[cfg(test)]
#[path = "cache_replicas_tests.rs"]
mod tests;
