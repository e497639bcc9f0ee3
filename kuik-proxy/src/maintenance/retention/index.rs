//! Index of all retention documents of a store.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use kuik_core::{
    content::{RegistryStore, SourceError},
    reference::{RepositoryName, Tag},
    retention::{ClusterId, InvalidDocument, RetentionDocument, RetentionState, etag},
};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::Instant;

use super::{
    RetentionMetrics, SteadyClock,
    cluster::{Cluster, Content},
    documents::{self, Documents},
};
use crate::pull_through::ManagedTags;

/// Maximum number of clusters.
const MAX_CLUSTERS: usize = 64;

/// Interval between reads of the documents if other processes share the store.
const REFRESH: Duration = Duration::from_secs(60);

/// Interval between searches for documents of new clusters in such a store: each walks all metadata.
const RELOAD: Duration = Duration::from_secs(600);

/// Delay before the next attempt to read the documents after a failure: doubled up to the maximum.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Options of a [`RetentionIndex`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionOptions {
    /// A document that its cluster has not renewed for this long no longer counts. 30 days.
    pub lapse: Duration,
    /// Whether other processes write to the store: their documents are then read at intervals.
    pub is_shared: bool,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self { lapse: Duration::from_secs(30 * 24 * 3600), is_shared: false }
    }
}

/// How needed an image is, over all clusters and all names of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// No document names it.
    Unmanaged,
    /// No pod uses it.
    Unused {
        /// When it expires, in seconds since the Unix epoch; `u64::MAX` if it does not.
        expires_at: u64,
    },
    /// It is in use or retained, or may be: it is not to be evicted.
    Needed,
}

/// Why a document is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RejectedDocument {
    /// The document is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidDocument),
    /// Too many clusters have documents.
    #[error(
        "there are retention documents of {MAX_CLUSTERS} clusters already: delete those of former clusters"
    )]
    TooManyClusters,
    /// The store failed.
    #[error("cannot store the retention document")]
    Store(#[source] SourceError),
}

/// All retention documents of a store. Cheap to clone; clones share them.
///
/// It knows nothing until [`run`](Self::run) or [`load`](Self::load) has read them.
#[derive(Clone)]
pub struct RetentionIndex(Arc<Inner>);

struct Inner {
    documents: Documents,
    options: RetentionOptions,
    clock: SteadyClock,
    metrics: RetentionMetrics,
    state: RwLock<State>,
    /// Held while documents are read from the store or written to it.
    storing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Whether all documents have been read once.
    loaded: bool,
    clusters: BTreeMap<ClusterId, Cluster>,
}

impl RetentionIndex {
    /// Creates an index of the documents in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn RegistryStore>, options: RetentionOptions, metrics: RetentionMetrics) -> Self {
        Self(Arc::new(Inner {
            documents: Documents(store),
            options,
            clock: SteadyClock::default(),
            metrics,
            state: RwLock::default(),
            storing: tokio::sync::Mutex::default(),
        }))
    }

    /// Returns whether a cluster manages `tag`: its controllers keep the tag up to date. False while that is unknown.
    #[must_use]
    pub fn is_managed(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        let Ok(repository) = repository.encoded() else { return false };
        self.any_live(|_, content| match content {
            Content::Known { document, .. } => document.get(&repository, tag.as_str()).is_some(),
            Content::Damaged => false,
        })
    }

    /// Returns the standing of an image with these tags and digests.
    #[must_use]
    pub fn standing<'a>(
        &self,
        repository: &RepositoryName,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Standing {
        if !self.is_loaded() {
            return Standing::Needed;
        }
        let Ok(repository) = repository.encoded() else { return Standing::Unmanaged };
        let names: Vec<&str> = names.into_iter().collect();
        let (mut standing, clock, state) = (Standing::Unmanaged, self.clock(), self.state());
        for cluster in state.clusters.values().filter(|cluster| self.is_live(cluster, clock)) {
            let Content::Known { document, .. } = &cluster.content else { return Standing::Needed };
            for retention in names.iter().filter_map(|name| document.get(&repository, name)) {
                standing = standing.max(match retention.state {
                    RetentionState::InUse | RetentionState::Retained => Standing::Needed,
                    RetentionState::Unused => {
                        Standing::Unused { expires_at: retention.expires_at.unwrap_or(u64::MAX) }
                    }
                });
            }
        }
        standing
    }

    /// Returns whether a cluster other than `cluster` has the tag in its document, or may have.
    #[must_use]
    pub fn is_held_by_others(&self, cluster: &ClusterId, repository: &RepositoryName, tag: &Tag) -> bool {
        let Ok(repository) = repository.encoded() else { return false };
        !self.is_loaded()
            || self.any_live(|id, content| {
                id != cluster
                    && match content {
                        Content::Known { document, .. } => document.get(&repository, tag.as_str()).is_some(),
                        Content::Damaged => true,
                    }
            })
    }

    /// Returns whether a cluster reports which images it needs, so that these are not evicted.
    #[must_use]
    pub fn has_documents(&self) -> bool {
        self.is_loaded() && self.any_live(|_, _| true)
    }

    /// Returns whether all documents have been read.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.state().loaded
    }

    /// Returns the current time, by a clock that does not follow jumps.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.0.clock.now()
    }

    /// Returns the `ETag` of a cluster's document; `None` if there is none, or if its cluster is to send it again: it is
    /// damaged, or its renewal time is long ago or in the future.
    ///
    /// # Errors
    /// Fails if other processes share the store and it cannot be read.
    pub async fn etag(&self, cluster: &ClusterId) -> Result<Option<String>, SourceError> {
        if self.0.options.is_shared {
            let _storing = self.0.storing.lock().await;
            self.counted(self.read(cluster).await)?;
        }
        let (now, state) = (self.now(), self.state());
        let current = state.clusters.get(cluster).filter(|it| it.is_current(now, self.0.options.lapse));
        Ok(current.and_then(|cluster| match &cluster.content {
            Content::Known { etag, .. } => Some(etag.clone()),
            Content::Damaged => None,
        }))
    }

    /// Returns a cluster's document as it was sent; `None` if there is none, or a damaged one.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn get(&self, cluster: &ClusterId) -> Result<Option<Bytes>, SourceError> {
        let entry = self.counted(self.0.documents.read(cluster).await)?;
        Ok(entry.and_then(|entry| documents::decode(&entry).ok()).map(|stored| stored.text))
    }

    /// Stores a cluster's document, which is renewed by that; returns its `ETag`.
    ///
    /// # Errors
    /// Fails if the document is invalid or the store cannot be written: the earlier document then stays in force.
    pub async fn put(&self, cluster: &ClusterId, text: &[u8]) -> Result<String, RejectedDocument> {
        let document = RetentionDocument::parse(text)?;
        let _storing = self.0.storing.lock().await;
        self.make_space(cluster).await?;
        let was_damaged =
            self.state().clusters.get(cluster).is_some_and(|it| matches!(it.content, Content::Damaged));
        if was_damaged {
            self.set_aside(cluster).await;
        }
        let renewed_at = self.now();
        let written = self.0.documents.write(cluster, Some(documents::encode(text, renewed_at))).await;
        self.counted(written).map_err(RejectedDocument::Store)?;
        let etag = etag(text);
        let content = Content::Known { etag: etag.clone(), document };
        self.insert(cluster, Cluster { content, renewed_at, seen: Instant::now() });
        Ok(etag)
    }

    /// Removes a cluster's document.
    ///
    /// # Errors
    /// Fails if the store cannot be written.
    pub async fn remove(&self, cluster: &ClusterId) -> Result<(), SourceError> {
        let _storing = self.0.storing.lock().await;
        self.counted(self.0.documents.write(cluster, None).await)?;
        self.state_mut().clusters.remove(cluster);
        self.measure();
        Ok(())
    }

    /// Reads all documents from the store.
    ///
    /// # Errors
    /// Fails if the store cannot be read: what was known before stays in force.
    pub async fn load(&self) -> Result<(), SourceError> {
        let _storing = self.0.storing.lock().await;
        let clusters = self.counted(self.0.documents.clusters().await)?;
        for cluster in &clusters {
            self.counted(self.read(cluster).await)?;
        }
        {
            let mut state = self.state_mut();
            state.clusters.retain(|cluster, _| clusters.contains(cluster));
            state.loaded = true;
        }
        self.measure();
        Ok(())
    }

    /// Reads documents again that other processes may have written; those of new clusters too if `all`. Does nothing
    /// if no other process writes to the store.
    ///
    /// # Errors
    /// Fails like [`load`](Self::load).
    pub async fn refresh(&self, all: bool) -> Result<(), SourceError> {
        if !self.0.options.is_shared {
            return Ok(());
        }
        if all {
            return self.load().await;
        }
        let _storing = self.0.storing.lock().await;
        let clusters: Vec<_> = self.state().clusters.keys().cloned().collect();
        for cluster in &clusters {
            self.counted(self.read(cluster).await)?;
        }
        self.measure();
        Ok(())
    }

    /// Reads the documents, and then again at intervals, for as long as the future is polled. Failures are logged and
    /// retried.
    pub async fn run(self) -> ! {
        let mut retry = RETRY;
        while let Err(error) = self.load().await {
            tracing::warn!(
                error = error.chain(),
                ?retry,
                "cannot read retention documents, evicting no image until they are read"
            );
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(MAX_RETRY);
        }
        let mut loaded_at = Instant::now();
        loop {
            tokio::time::sleep(REFRESH).await;
            self.measure();
            let all = loaded_at.elapsed() >= RELOAD;
            match self.refresh(all).await {
                Ok(()) if all => loaded_at = Instant::now(),
                Ok(()) => {}
                Err(error) => tracing::warn!(
                    error = error.chain(),
                    "cannot read retention documents, those read before stay in force"
                ),
            }
        }
    }

    /// Reads the entry of a cluster into the index.
    async fn read(&self, cluster: &ClusterId) -> Result<(), SourceError> {
        let Some(entry) = self.0.documents.read(cluster).await? else {
            self.state_mut().clusters.remove(cluster);
            return Ok(());
        };
        let known = {
            let state = self.state();
            state.clusters.get(cluster).map(|known| {
                let etag = match &known.content {
                    Content::Known { etag, .. } => Some(etag.clone()),
                    Content::Damaged => None,
                };
                (known.renewed_at, known.seen, etag)
            })
        };
        match documents::decode(&entry) {
            Ok(stored) => {
                let etag = etag(&stored.text);
                let since = known.filter(|known| {
                    known.2.as_ref() == Some(&etag) && is_same_second(known.0, stored.renewed_at)
                });
                let seen = since.map_or_else(Instant::now, |known| known.1);
                let content = Content::Known { etag, document: stored.document };
                self.insert(cluster, Cluster { content, renewed_at: stored.renewed_at, seen });
            }
            // It was reported when it was first read.
            Err(_) if known.as_ref().is_some_and(|known| known.2.is_none()) => {}
            Err(error) => {
                tracing::error!(
                    %cluster,
                    error = &error as &dyn std::error::Error,
                    "evicting no image until the cluster sends its retention document again"
                );
                let renewed_at = SystemTime::now();
                self.insert(cluster, Cluster { content: Content::Damaged, renewed_at, seen: Instant::now() });
            }
        }
        Ok(())
    }

    /// Makes space for the document of a new cluster: removes those that no longer count, if there are too many.
    async fn make_space(&self, cluster: &ClusterId) -> Result<(), RejectedDocument> {
        let lapsed: Vec<_> = {
            let (clock, state) = (self.clock(), self.state());
            if state.clusters.contains_key(cluster) || state.clusters.len() < MAX_CLUSTERS {
                return Ok(());
            }
            let lapsed = state.clusters.iter().filter(|(_, known)| !self.is_live(known, clock));
            lapsed.map(|(id, _)| id.clone()).collect()
        };
        for id in &lapsed {
            self.counted(self.0.documents.write(id, None).await).map_err(RejectedDocument::Store)?;
            self.state_mut().clusters.remove(id);
        }
        if lapsed.is_empty() { Err(RejectedDocument::TooManyClusters) } else { Ok(()) }
    }

    /// Keeps the damaged entry of a cluster that is about to be replaced. If that fails, it is lost.
    async fn set_aside(&self, cluster: &ClusterId) {
        let moved = async {
            match self.0.documents.read(cluster).await? {
                Some(entry) => self.0.documents.set_aside(cluster, entry).await,
                None => Ok(()),
            }
        };
        if let Err(error) = moved.await {
            tracing::warn!(%cluster, error = error.chain(), "cannot keep the damaged retention document");
        }
    }

    fn insert(&self, id: &ClusterId, cluster: Cluster) {
        self.state_mut().clusters.insert(id.clone(), cluster);
        self.measure();
    }

    fn measure(&self) {
        let (clock, state) = (self.clock(), self.state());
        let (mut live, mut lapsed, mut damaged, mut images) = (0, 0, 0, 0);
        for cluster in state.clusters.values() {
            match &cluster.content {
                Content::Damaged => damaged += 1,
                Content::Known { .. } if !self.is_live(cluster, clock) => lapsed += 1,
                Content::Known { document, .. } => {
                    live += 1;
                    images += document.len() as u64;
                }
            }
        }
        self.0.metrics.set_clusters(live, lapsed, damaged);
        self.0.metrics.images.set(images);
    }

    pub(super) fn metrics(&self) -> &RetentionMetrics {
        &self.0.metrics
    }

    fn counted<T>(&self, result: Result<T, SourceError>) -> Result<T, SourceError> {
        result.inspect_err(|_| {
            self.0.metrics.failed.inc();
        })
    }

    fn any_live(&self, is: impl Fn(&ClusterId, &Content) -> bool) -> bool {
        let (clock, state) = (self.clock(), self.state());
        let mut clusters = state.clusters.iter();
        clusters.any(|(id, cluster)| is(id, &cluster.content) && self.is_live(cluster, clock))
    }

    fn is_live(&self, cluster: &Cluster, (now, instant): (SystemTime, Instant)) -> bool {
        cluster.is_live(now, instant, self.0.options.lapse)
    }

    fn clock(&self) -> (SystemTime, Instant) {
        (self.0.clock.now(), Instant::now())
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read()
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.0.state.write()
    }
}

/// A tag in a document that counts is managed, in whatever state.
impl ManagedTags for RetentionIndex {
    fn is_managed(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        Self::is_managed(self, repository, tag)
    }
}

impl fmt::Debug for RetentionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetentionIndex").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// Times in the store have no fractions.
fn is_same_second(one: SystemTime, other: SystemTime) -> bool {
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).ok();
    seconds(one) == seconds(other)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
