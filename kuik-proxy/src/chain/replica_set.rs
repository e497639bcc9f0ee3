//! The cache, where it has several replicas: each key is asked of its owner, and of the next in rank while the owner
//! is away.
//!
//! Replicas that are down cost the requests that find them so less than a second, all together, and then nobody
//! anything: their breakers are open, and [`ReplicaSet::maintain`] looks in the background whether they are back. Down is
//! who cannot be reached, or says nothing and does not answer to a ping either. A replica that answers is up, whatever it
//! answers; one that is slow because its upstream is slow is waited for.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
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
        Blob, ByteRange, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers, Served,
        SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    failover::{Breaker, BreakerOptions, Role, Verdict, most_useful},
    reference::RepositoryName,
};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    Replicas,
    rank::{manifest_key, rank},
};

/// How many replicas one request is asked of: the owner, and the next in rank.
const ASKED: usize = 2;

/// Who has shown life within this time is more likely busy than dead.
const LATELY: Duration = Duration::from_secs(10);

/// How many pings are on their way at one time.
const PINGS: usize = 8;

/// One replica of the cache.
#[async_trait]
pub trait Replica: ContentSource {
    /// Whether it answers at all. It bounds its own wait to connect.
    ///
    /// # Errors
    /// Why it does not.
    async fn ping(&self) -> Result<(), SourceError>;
}

/// Makes a [`Replica`] of the name (`HOST:PORT`) of one.
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// The replica called `name`. Nothing is sent yet.
    ///
    /// # Errors
    /// Where the name is no name that can be connected to.
    fn connect(&self, name: &str) -> Result<Arc<dyn Replica>, SourceError>;
}

/// How a [`ReplicaSet`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaSetOptions {
    /// When a replica is left alone, and for how long.
    pub breaker: BreakerOptions,
    /// How often it is asked which replicas there are: 5 s.
    pub refresh: Duration,
    /// After how long a replica that says nothing is pinged, and the next in rank with it: 100 ms.
    pub silence: Duration,
    /// How long a request waits for a sign of life of any of them, all in all: 950 ms. Then it goes on without.
    pub patience: Duration,
    /// The same where the owner has shown life within the last ten seconds: 4 s. It is more likely busy than dead, and
    /// those who give it up would ask upstream, all of them.
    pub forbearance: Duration,
    /// After how long one that has shown life, and still says nothing, is pinged again: 1 s.
    pub look_again: Duration,
    /// How long it may take to answer the ping that tells whether it is back: 3 s.
    pub ping: Duration,
}

impl Default for ReplicaSetOptions {
    fn default() -> Self {
        Self {
            breaker: BreakerOptions::default(),
            refresh: Duration::from_secs(5),
            silence: Duration::from_millis(100),
            patience: Duration::from_millis(950),
            forbearance: Duration::from_secs(4),
            look_again: Duration::from_secs(1),
            ping: Duration::from_secs(3),
        }
    }
}

/// A source over the replicas of a cache. Cheap to clone.
///
/// Which replicas there are, and whether one that was down is back, is found out by [`ReplicaSet::maintain`], which
/// the caller runs beside it; until it runs, there are none.
#[derive(Debug, Clone)]
pub struct ReplicaSet {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    replicas: Box<dyn Replicas>,
    connect: Box<dyn Connect>,
    options: ReplicaSetOptions,
    members: RwLock<Arc<[Arc<Member>]>>,
    /// A breaker has opened: a probe will be due sooner than was known.
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
    /// When it last answered anything.
    heard: Mutex<Option<Instant>>,
    /// Held while it is pinged: however many wait for it, one asks.
    pinging: tokio::sync::Mutex<()>,
}

impl ReplicaSet {
    /// A source over `replicas`, each made by `connect`.
    pub fn new(replicas: impl Replicas, connect: impl Connect, options: ReplicaSetOptions) -> Self {
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

    /// Keeps up with which replicas there are and which are back, for as long as it is polled. It never ends.
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

    /// Registers what is counted. `registry` carries the prefix `kube_image_keeper`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("proxy");
        let Gauges { known, away } = self.shared.gauges.clone();
        registry.register("cache_replicas", "Replicas of the cache that are known", known);
        registry.register(
            "cache_replicas_away",
            "Those of them that are left alone until they are back",
            away,
        );
    }

    fn members(&self) -> Arc<[Arc<Member>]> {
        self.shared.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks which replicas there are. Those that stay keep their breakers.
    async fn refresh(&self) {
        let names = match self.shared.replicas.replicas().await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "the cache's replicas cannot be looked up: those that were known stay");
                return;
            }
        };
        let before = self.members();
        if before.iter().map(|member| &member.name).eq(&names) {
            return;
        }
        tracing::info!(replicas = ?names, "the cache's replicas are known");
        let member = |name: String| match before.iter().find(|member| member.name == name) {
            Some(member) => Some(member.clone()),
            None => match self.shared.connect.connect(&name) {
                Ok(replica) => {
                    let breaker = Mutex::new(Breaker::new(self.shared.options.breaker));
                    let (heard, pinging) = Default::default();
                    Some(Arc::new(Member { name, replica, breaker, heard, pinging }))
                }
                Err(error) => {
                    tracing::error!(%name, error = error.chain(), "a replica of the cache cannot be used");
                    None
                }
            },
        };
        let members = names.into_iter().filter_map(member).collect();
        *self.shared.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// Pings those whose breakers are due.
    async fn probe(&self) {
        let at = now();
        let due: Vec<_> =
            self.members().iter().filter(|member| member.breaker().try_probe(at)).cloned().collect();
        let limit = self.shared.options.ping;
        stream::iter(due)
            .for_each_concurrent(PINGS, |member| async move {
                // Who drops this before its end gives the probe back.
                let probe = Probe(&member);
                let answered = probe.0.pinged(limit).await;
                match answered {
                    Ok(()) => {
                        member.breaker().succeeded();
                        tracing::info!(replica = member.name, "a replica of the cache is back");
                    }
                    Err(_) => member.breaker().failed(now(), chance()),
                }
            })
            .await;
    }

    /// The answer of the first replica in rank that has one.
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
            .take(ASKED)
            .collect();
        let began = Instant::now();
        let mut was_silent = false;
        for (at, member) in up.iter().enumerate() {
            // Those that come after one that was silent were pinged with it, in vain or not.
            let is_silent = was_silent && !member.heard_since(began);
            let others = up.get(at + 1..).unwrap_or_default();
            let answer = tokio::select! {
                biased;
                dead = async { member.suspect() }, if is_silent => Err(dead),
                answer = ask(member.replica.clone()) => answer,
                dead = member.found_dead(others, began, &self.shared.options) => {
                    was_silent = true;
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
                    "a replica of the cache is left alone"
                );
                member.breaker().failed(now(), chance());
                self.shared.opened.notify_one();
            }
            if Role::Copy.verdict(error.kind()) == Verdict::Answer {
                return Err(error);
            }
            failure = Some(most_useful(failure, error));
        }
        Err(failure.unwrap_or_else(|| {
            let attempted = format!("ask the cache for {key}: none of its replicas can be asked now");
            SourceError::new(SourceErrorKind::Unavailable, attempted).unreachable()
        }))
    }
}

impl Member {
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pinged(&self, limit: Duration) -> Result<(), SourceError> {
        timeout(limit, self.replica.ping()).await.unwrap_or_else(|_| {
            let attempted = format!("ping {}: no answer within {limit:?}", self.name);
            Err(SourceError::new(SourceErrorKind::TimedOut, attempted).unreachable())
        })
    }

    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn heard_since(&self, then: Instant) -> bool {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|heard| heard > then)
    }

    /// Ends when the replica says nothing and does not answer to a ping either: whoever waits for it waits in vain.
    /// The `others`, which would be asked next, are pinged with it. What it is given for its first sign of life is counted
    /// from when the request `began`, unless it has shown one since.
    async fn found_dead(
        &self,
        others: &[&Arc<Self>],
        began: Instant,
        options: &ReplicaSetOptions,
    ) -> SourceError {
        let lately = began.checked_sub(LATELY).is_some_and(|then| self.heard_since(then));
        let patience = if lately { options.forbearance } else { options.patience };
        let mut by = if self.heard_since(began) { Instant::now() } else { began } + patience;
        let mut wait = options.silence;
        loop {
            let since = Instant::now();
            sleep(wait).await;
            let pinging: FuturesUnordered<_> =
                others.iter().map(|other| other.shows_life(since, by)).collect();
            // Nobody waits for the others: they have as long as this one has, and no longer.
            let alive = tokio::select! {
                alive = self.shows_life(since, by) => alive,
                () = async { pinging.for_each(|_| ready(())).await; pending().await } => false,
            };
            if !alive {
                return self.suspect();
            }
            wait = options.look_again;
            by = Instant::now() + wait + options.forbearance;
        }
    }

    /// Whether anything is heard of it from `since` on, or it answers to a ping, until `by`. However many want to know,
    /// one asks.
    async fn shows_life(&self, since: Instant, by: Instant) -> bool {
        let look = async {
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
        timeout_at(by, look).await.unwrap_or(false)
    }

    /// It is left alone, until a ping that is sent at once, and given more time, says otherwise.
    fn suspect(&self) -> SourceError {
        self.breaker().suspected(now());
        let attempted = format!("wait for {}: it says nothing, and does not answer to a ping", self.name);
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

/// A random number from 0 to 1, which need not be a good one.
fn chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

#[async_trait]
impl ContentSource for ReplicaSet {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
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
    ) -> Result<Served<Manifest>, SourceError> {
        let ask = |replica: Arc<dyn Replica>| -> BoxFuture<'_, _> {
            Box::pin(async move { replica.manifest(repository, at, freshness).await })
        };
        self.first(&manifest_key(repository, at), ask).await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
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
    ) -> Result<Served<Blob>, SourceError> {
        let ask = |replica: Arc<dyn Replica>| -> BoxFuture<'_, _> {
            Box::pin(async move { replica.blob(repository, digest, range).await })
        };
        self.first(digest.as_str(), ask).await
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
}

#[cfg(test)]
#[path = "replica_set_tests.rs"]
mod tests;
