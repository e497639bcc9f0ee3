//! Failover latency with replicas that hang, are down or are slow, in virtual time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use kuik_core::content::ContentStore as _;
use kuik_testkit::{MemoryStore, SampleImage};

use super::*;
use crate::chain::StaticReplicas;

/// A replica whose behavior the test controls.
#[derive(Debug)]
struct Scripted {
    store: MemoryStore,
    /// Requests get no answer.
    mute: AtomicBool,
    /// Pings get no answer either.
    hung: AtomicBool,
    /// Delay of each answer.
    slow: Duration,
}

impl Scripted {
    async fn respond(&self) {
        if self.hung.load(Ordering::SeqCst) || self.mute.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        sleep(self.slow).await;
    }
}

#[async_trait]
impl ContentSource for Scripted {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        self.respond().await;
        self.store.resolve(repository, at, freshness).await
    }

    kuik_core::forward!(this => &this.store; manifest, blob_size, blob, tags, referrers);
}

#[async_trait]
impl Replica for Scripted {
    async fn ping(&self) -> Result<(), SourceError> {
        if self.hung.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Known(BTreeMap<String, Arc<Scripted>>);

impl Connect for Known {
    fn connect(&self, name: &str) -> Result<Arc<dyn Replica>, SourceError> {
        Ok(self.0[name].clone())
    }
}

/// Two replicas that have an image, owner first, and the request for it.
struct Harness {
    set: CacheReplicas,
    owner: Arc<Scripted>,
    next: Arc<Scripted>,
    app: RepositoryName,
    at: TagOrDigest,
    _maintained: tokio::task::JoinHandle<()>,
}

impl Harness {
    async fn start(slow: Duration) -> Self {
        let image = SampleImage::small(1);
        let app: RepositoryName = "registry.test/app".parse().unwrap();
        let at = TagOrDigest::Tag("v1".parse().unwrap());
        let names = ["10.0.0.1:5000", "10.0.0.2:5000"];
        let mut known = BTreeMap::new();
        for name in names {
            let store = MemoryStore::default();
            store.put_manifest(&app, image.index(), Some(&"v1".parse().unwrap())).await.unwrap();
            let (mute, hung) = Default::default();
            known.insert(name.to_owned(), Arc::new(Scripted { store, mute, hung, slow }));
        }
        let ranked: Vec<_> =
            rank(&manifest_key(&app, &at), names).map(|at| known[names[at]].clone()).collect();
        let (owner, next) = (ranked[0].clone(), ranked[1].clone());
        let replicas = StaticReplicas::new(names).unwrap();
        let set = CacheReplicas::new(replicas, Known(known), CacheReplicasOptions::default());
        let maintained = set.clone();
        let _maintained = tokio::spawn(async move { maintained.maintain().await });
        while set.members().is_empty() {
            tokio::task::yield_now().await;
        }
        Self { set, owner, next, app, at, _maintained }
    }

    /// Returns how long a request takes, and whether it is answered.
    async fn ask(&self) -> (Duration, bool) {
        let began = Instant::now();
        let answered = self.set.resolve(&self.app, &self.at, Freshness::Cached).await;
        (began.elapsed(), answered.is_ok())
    }
}

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn hung_replicas_delay_the_first_request_by_less_than_a_second_in_total() {
    let harness = Harness::start(Duration::ZERO).await;
    harness.owner.hung.store(true, Ordering::SeqCst);
    harness.next.hung.store(true, Ordering::SeqCst);
    let (took, answered) = harness.ask().await;
    assert!(took <= 951 * MS && !answered, "{took:?}");
    let (took, answered) = harness.ask().await;
    assert!(took < MS && !answered, "{took:?}");
    // They are probed in the background, and used again once they are back.
    harness.owner.hung.store(false, Ordering::SeqCst);
    harness.next.hung.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(9)).await;
    assert!(harness.ask().await.1);
}

#[tokio::test(start_paused = true)]
async fn next_replica_takes_over_within_a_second_when_the_owner_hangs() {
    let harness = Harness::start(Duration::ZERO).await;
    harness.owner.hung.store(true, Ordering::SeqCst);
    let (took, answered) = harness.ask().await;
    assert!(took <= 951 * MS && answered, "{took:?}");
    let (took, answered) = harness.ask().await;
    assert!(took < MS && answered, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn busy_replica_is_used_again_after_a_successful_ping() {
    let harness = Harness::start(Duration::ZERO).await;
    harness.owner.hung.store(true, Ordering::SeqCst);
    assert!(harness.ask().await.1);
    harness.owner.hung.store(false, Ordering::SeqCst);
    let away = || harness.set.members().iter().filter(|member| !member.breaker().is_closed()).count();
    assert_eq!(away(), 1);
    // The ping that hung times out after three seconds, and the next one follows soon.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(away(), 0);
}

#[tokio::test(start_paused = true)]
async fn replica_with_a_slow_upstream_is_waited_for() {
    let harness = Harness::start(Duration::from_secs(15)).await;
    let (took, answered) = harness.ask().await;
    assert!(took >= Duration::from_secs(15) && answered, "{took:?}");
    assert!(harness.set.members().iter().all(|member| member.breaker().is_closed()));
}

#[tokio::test(start_paused = true)]
async fn replica_that_dies_during_a_request_is_detected() {
    let harness = Harness::start(Duration::ZERO).await;
    harness.owner.mute.store(true, Ordering::SeqCst);
    let dying = async {
        sleep(Duration::from_secs(5)).await;
        harness.owner.hung.store(true, Ordering::SeqCst);
    };
    let ((took, answered), ()) = tokio::join!(harness.ask(), dying);
    assert!(took <= Duration::from_secs(11) && answered, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn recently_responsive_replica_gets_the_busy_timeout() {
    let harness = Harness::start(Duration::ZERO).await;
    assert!(harness.ask().await.1);
    harness.owner.hung.store(true, Ordering::SeqCst);
    let reviving = async {
        sleep(Duration::from_secs(3)).await;
        harness.owner.hung.store(false, Ordering::SeqCst);
    };
    // The request that hung is lost, but the replica is not given up: it is pinged until it answers.
    let away = || harness.set.members().iter().filter(|member| !member.breaker().is_closed()).count();
    let (_, ()) = tokio::join!(timeout(3500 * MS, harness.ask()), reviving);
    assert_eq!(away(), 0);
    // After a while without requests, it gets no extra time.
    harness.owner.hung.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(11)).await;
    let (took, answered) = harness.ask().await;
    assert!(took <= 951 * MS && answered, "{took:?}");
}
