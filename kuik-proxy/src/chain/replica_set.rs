//! The cache, where it has several replicas: each key is asked of its owner, and of the next in rank while the owner
//! is away.
//!
//! A replica that is down costs the requests that find it so a moment each, and then nobody anything: its breaker is
//! open, and [`ReplicaSet::maintain`] looks in the background whether it is back. Down is who cannot be reached, or
//! says nothing and does not answer to a ping either. A replica that answers is up, whatever it answers; one that is
//! slow because its upstream is slow is waited for.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, future::BoxFuture, stream};
use kuik_core::{
    content::{
        Blob, ByteRange, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers, Served,
        SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    reference::RepositoryName,
};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Breaker, BreakerOptions, Replicas, Role,
    rank::{manifest_key, rank},
    verdict::{Verdict, most_useful},
};

/// How many replicas one request is asked of: the owner, and the next in rank.
const ASKED: usize = 2;

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
    /// After how long a replica that says nothing is pinged: 1 s.
    pub silence: Duration,
    /// How long it may take to answer a ping: 3 s, for one that is busy is not away.
    pub ping: Duration,
}

impl Default for ReplicaSetOptions {
    fn default() -> Self {
        Self {
            breaker: BreakerOptions::default(),
            refresh: Duration::from_secs(5),
            silence: Duration::from_secs(1),
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
            let due = self.members().iter().filter_map(|member| member.breaker().probe_at()).min();
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
        let now = Instant::now();
        let due: Vec<_> =
            self.members().iter().filter(|member| member.breaker().try_probe(now)).cloned().collect();
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
                    Err(_) => member.breaker().failed(Instant::now(), chance()),
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
        for member in up {
            let answer = tokio::select! {
                answer = ask(member.replica.clone()) => answer,
                dead = member.found_dead(&self.shared.options) => Err(dead),
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
                member.breaker().failed(Instant::now(), chance());
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
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|heard| heard >= then)
    }

    /// Ends when the replica does not answer to a ping: whoever waits for it waits in vain.
    async fn found_dead(&self, options: &ReplicaSetOptions) -> SourceError {
        loop {
            let since = Instant::now();
            sleep(options.silence).await;
            let _alone = self.pinging.lock().await;
            if self.heard_since(since) {
                // It works, on this answer or on others.
                continue;
            }
            if !self.breaker().is_closed() {
                let attempted = format!("wait for {}: others found that it does not answer", self.name);
                return SourceError::new(SourceErrorKind::TimedOut, attempted).unreachable();
            }
            match self.pinged(options.ping).await {
                Ok(()) => self.hear(),
                Err(error) => {
                    // Before the next one looks.
                    self.breaker().failed(Instant::now(), chance());
                    return error.unreachable();
                }
            }
        }
    }
}

/// The one probe of a breaker.
struct Probe<'a>(&'a Member);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.breaker().abandoned(Instant::now());
    }
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
