//! The model: what runs, what the test did to it, and what has to follow.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::{Duration, Instant, SystemTime},
};

use kuik_core::content::Digest;
use kuik_testkit::SampleImage;

use super::{
    cache::Cache,
    clusters::Cluster,
    images::{IMAGES, Images},
    invariants::{self, Checks},
};

/// How long anything that has to happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct World {
    pub(super) images: Images,
    pub(super) cache: Cache,
    pub(super) clusters: Vec<Cluster>,
    /// The apps that were in the cache at the last check while they were used or retained, and have been since.
    pub(super) held: BTreeSet<usize>,
    /// The version that each app has at least, since someone asked for it.
    pub(super) refreshed: BTreeMap<usize, usize>,
    /// When each version was last pulled without a pod, by the clock of the cache, and by the digest of its index.
    pub(super) pulled: BTreeMap<Digest, SystemTime>,
    /// Pulls of images that have to be in the cache until their time is over, by app.
    pub(super) kept: BTreeMap<usize, (Digest, Instant)>,
    pub(super) checks: Checks,
    /// The steps since the last check, for the message of a failure.
    recent: Vec<String>,
    steps: BTreeMap<&'static str, usize>,
    stamp: u64,
}

impl World {
    pub(super) async fn start() -> Self {
        let images = Images::start().await;
        let cache = Cache::start(images.registry.host()).await;
        let cluster = Cluster::start(&cache.address).await;
        Self {
            images,
            cache,
            clusters: vec![cluster],
            held: BTreeSet::new(),
            refreshed: BTreeMap::new(),
            pulled: BTreeMap::new(),
            kept: BTreeMap::new(),
            checks: Checks::default(),
            recent: Vec::new(),
            steps: BTreeMap::new(),
            stamp: 0,
        }
    }

    /// Waits until the system is idle, and checks every invariant.
    pub(super) async fn check(&mut self) {
        self.status_follows_the_cache().await;
        self.settle().await;
        invariants::check(self).await;
        self.recent.clear();
    }

    /// Waits until no status reports a missing image as cached. Only the controllers' own verification corrects it: the
    /// test requests nothing here.
    async fn status_follows_the_cache(&mut self) {
        let mut wrong: BTreeMap<(usize, usize), Instant> = BTreeMap::new();
        loop {
            self.images.observe(&self.cache);
            let now = invariants::wrongly_ready(self).await;
            wrong.retain(|image, _| now.contains(image));
            for image in now {
                let since = wrong.entry(image).or_insert_with(Instant::now).elapsed();
                if since > invariants::MOST_WRONG {
                    let (cluster, app) = image;
                    self.fail(&[format!("cluster {cluster}, app {app}: Ready and missing for {since:.1?}")]);
                }
            }
            if wrong.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks for everything to be tried now, and waits until the status of each image is what the model expects.
    async fn settle(&mut self) {
        self.stamp += 1;
        for cluster in &self.clusters {
            cluster.annotate_all(&self.stamp.to_string()).await;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.images.observe(&self.cache);
            let problems = invariants::unsettled(self).await;
            if problems.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                self.fail(&problems);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Fails the test with everything that helps to understand it.
    pub(super) fn fail(&self, problems: &[String]) -> ! {
        for (number, cluster) in self.clusters.iter().enumerate() {
            println!("controllers of cluster {number}:\n{}", cluster.log());
        }
        println!("cache:\n{}", self.cache.log());
        panic!("after {:#?}\n{problems:#?}", self.recent);
    }

    /// The version of an app that the cache has under the app's tag, with every part.
    pub(super) fn stored(&self, app: usize) -> Option<usize> {
        self.images.stored(&self.cache, app)
    }

    /// Whether a pod of any cluster uses it.
    pub(super) fn is_used(&self, app: usize) -> bool {
        self.clusters.iter().any(|cluster| cluster.used_by(app) > 0)
    }

    /// An app may be less needed than before: it may go unless a pod uses it.
    pub(super) fn released(&mut self, app: usize) {
        if !self.is_used(app) {
            self.held.remove(&app);
        }
    }

    /// Remembers a pull of a version that no pod needs.
    pub(super) async fn note_pull(&mut self, app: usize, version: &SampleImage) {
        let top = version.index().digest().clone();
        self.pulled.insert(top.clone(), SystemTime::now());
        if self.cache.is_small {
            return;
        }
        let (cache, repository) = (&self.cache, self.images.repository(app));
        let is_stored = async || super::images::is_complete(cache, &repository, version);
        if !within_or(PATIENCE, is_stored).await {
            self.fail(&[format!("app {app} was pulled, and is not stored")]);
        }
        self.kept.insert(app, (top, Instant::now()));
    }

    /// Kills the cache. Fetches in progress are lost, and so are the pulls of the last seconds.
    pub(super) async fn kill_cache(&mut self) {
        self.cache.kill().await;
        self.kept.clear();
        self.images.observe(&self.cache);
        self.images.allow_missing(&self.cache, 0..IMAGES);
    }

    /// Counts a step, and remembers it until the next check.
    pub(super) fn note(&mut self, kind: &'static str, step: String) {
        self.images.observe(&self.cache);
        *self.steps.entry(kind).or_default() += 1;
        self.recent.push(step);
    }

    pub(super) fn summary(&self) -> String {
        let (needed, excess) = self.images.upstream_bytes();
        let lines = |counts: &BTreeMap<&'static str, usize>| {
            counts.iter().map(|(what, count)| format!("  {count:5} {what}\n")).collect::<String>()
        };
        format!(
            "steps:\n{}checks:\n{}upstream sent {needed} bytes of blobs that were needed, and {excess} more",
            lines(&self.steps),
            lines(self.checks.counts())
        )
    }
}

/// Waits until `condition` holds; returns false at the deadline.
pub(super) async fn within_or<F: Future<Output = bool>>(
    patience: Duration,
    mut condition: impl FnMut() -> F,
) -> bool {
    let deadline = Instant::now() + patience;
    while !condition().await {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}
