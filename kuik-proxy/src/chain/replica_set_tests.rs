//! What replicas that hang, are away or are slow cost, in virtual time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use kuik_core::{
    content::ContentStore as _,
    testkit::{MemoryStore, SampleImage},
};

use super::*;
use crate::chain::StaticReplicas;

/// A replica that does as it is told.
#[derive(Debug)]
struct Scripted {
    store: MemoryStore,
    /// It says nothing to requests.
    mute: AtomicBool,
    /// It does not even answer to a ping.
    hung: AtomicBool,
    /// It answers requests after so long.
    slow: Duration,
}

impl Scripted {
    async fn heed(&self) {
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
    ) -> Result<Served<Descriptor>, SourceError> {
        self.heed().await;
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

/// Two replicas that have an image, and what is asked for; the owner of it first.
struct Rig {
    set: ReplicaSet,
    owner: Arc<Scripted>,
    next: Arc<Scripted>,
    app: RepositoryName,
    at: TagOrDigest,
    _maintained: tokio::task::JoinHandle<()>,
}

impl Rig {
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
        let set = ReplicaSet::new(replicas, Known(known), ReplicaSetOptions::default());
        let maintained = set.clone();
        let _maintained = tokio::spawn(async move { maintained.maintain().await });
        while set.members().is_empty() {
            tokio::task::yield_now().await;
        }
        Self { set, owner, next, app, at, _maintained }
    }

    /// How long a request takes, and whether it is answered.
    async fn ask(&self) -> (Duration, bool) {
        let began = Instant::now();
        let answered = self.set.resolve(&self.app, &self.at, Freshness::Cached).await;
        (began.elapsed(), answered.is_ok())
    }
}

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn all_that_hang_cost_less_than_a_second_together_and_then_nothing() {
    let rig = Rig::start(Duration::ZERO).await;
    rig.owner.hung.store(true, Ordering::SeqCst);
    rig.next.hung.store(true, Ordering::SeqCst);
    let (took, answered) = rig.ask().await;
    assert!(took <= 951 * MS && !answered, "{took:?}");
    let (took, answered) = rig.ask().await;
    assert!(took < MS && !answered, "{took:?}");
    // They are asked in the background whether they are back, and used again when they are.
    rig.owner.hung.store(false, Ordering::SeqCst);
    rig.next.hung.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(9)).await;
    assert!(rig.ask().await.1);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_costs_less_than_a_second_and_the_next_takes_over() {
    let rig = Rig::start(Duration::ZERO).await;
    rig.owner.hung.store(true, Ordering::SeqCst);
    let (took, answered) = rig.ask().await;
    assert!(took <= 951 * MS && answered, "{took:?}");
    let (took, answered) = rig.ask().await;
    assert!(took < MS && answered, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_only_busy_is_back_as_soon_as_it_answers_a_ping() {
    let rig = Rig::start(Duration::ZERO).await;
    rig.owner.hung.store(true, Ordering::SeqCst);
    assert!(rig.ask().await.1);
    rig.owner.hung.store(false, Ordering::SeqCst);
    let away = || rig.set.members().iter().filter(|member| !member.breaker().is_closed()).count();
    assert_eq!(away(), 1);
    // The ping that hung is given up after three seconds, and the next one follows soon.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(away(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_whose_upstream_is_slow_is_waited_for() {
    let rig = Rig::start(Duration::from_secs(15)).await;
    let (took, answered) = rig.ask().await;
    assert!(took >= Duration::from_secs(15) && answered, "{took:?}");
    assert!(rig.set.members().iter().all(|member| member.breaker().is_closed()));
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_while_it_is_waited_for_is_found_dead() {
    let rig = Rig::start(Duration::ZERO).await;
    rig.owner.mute.store(true, Ordering::SeqCst);
    let dying = async {
        sleep(Duration::from_secs(5)).await;
        rig.owner.hung.store(true, Ordering::SeqCst);
    };
    let ((took, answered), ()) = tokio::join!(rig.ask(), dying);
    assert!(took <= Duration::from_secs(11) && answered, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_was_alive_a_moment_ago_is_given_more_time() {
    let rig = Rig::start(Duration::ZERO).await;
    assert!(rig.ask().await.1);
    rig.owner.hung.store(true, Ordering::SeqCst);
    let reviving = async {
        sleep(Duration::from_secs(3)).await;
        rig.owner.hung.store(false, Ordering::SeqCst);
    };
    // What it hangs on is lost, and it is not given up: it is pinged until it answers that.
    let away = || rig.set.members().iter().filter(|member| !member.breaker().is_closed()).count();
    let (_, ()) = tokio::join!(timeout(3500 * MS, rig.ask()), reviving);
    assert_eq!(away(), 0);
    // After a while in which nobody asked, it is not.
    rig.owner.hung.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(11)).await;
    let (took, answered) = rig.ask().await;
    assert!(took <= 951 * MS && answered, "{took:?}");
}
