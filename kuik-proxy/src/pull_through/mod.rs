//! Pull-through cache: a store in front of an upstream.
//!
//! [`PullThrough`] is a [`ContentSource`] over a [`ContentStore`] and another source. Content in the store is served
//! from it; missing content is fetched from upstream once, for all concurrent requests, and stored.
//!
//! A manifest or blob requested by digest is never revalidated. Tags are revalidated one by one:
//! - A tag that is managed ([`ManagedTags`]) is served as it is. Its controller refreshes it with
//!   [`Freshness::Revalidate`].
//! - For any other tag, upstream is asked for the current digest on each pull, or when the last check is old enough
//!   ([`Revalidate`]). Concurrent pulls share one `HEAD`.
//! - If upstream cannot answer, the cached content is served (stale-if-error), marked [`CacheStatus::Stale`]: a registry
//!   that is down, or that has lost the image, does not stop pulls.
//! - [`Freshness::OnlyIfCached`] is answered from the store alone.
//!
//! [`CacheStatus::Stale`]: kuik_core::content::CacheStatus::Stale

mod blobs;
mod coalesce;
mod cross_repo_access;
mod invalidating_store;
mod managed_tags;
mod manifest_cache;
mod sizes;
mod tags;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kuik_core::{
    content::{
        Blob, BlobLocation, ByteRange, Cached, ContentSource, ContentStore, Descriptor, Digest, Freshness,
        ImageIndex, Manifest, Referrers, SourceError, TagList, TagOrDigest, TagPage,
    },
    reference::RepositoryName,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::{
    coalesce::SingleFlight,
    manifest_cache::{ManifestCache, Remembered, StorageState},
    sizes::BlobSizes,
    tags::next_store_check,
};
pub use self::{
    invalidating_store::InvalidatingStore,
    managed_tags::{ManagedTags, NoManagedTags},
};
use crate::fill::{self, Fills};

/// Options of [`PullThrough`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullThroughOptions {
    /// When cached tags that are not managed are revalidated upstream. On each pull.
    pub revalidate: Revalidate,
    /// Timeout of the revalidation, and then of the new manifest, before the cached answer is served. 5 s each.
    pub revalidate_timeout: Duration,
    /// Larger blobs are refused. 128 GiB.
    pub max_blob_bytes: u64,
}

/// When cached tags that are not managed are revalidated upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revalidate {
    /// Only if a request asks for it: as if every tag were managed.
    Never,
    /// When the last check is older than this. Zero is on each pull.
    After(Duration),
}

impl Default for PullThroughOptions {
    fn default() -> Self {
        Self {
            revalidate: Revalidate::After(Duration::ZERO),
            revalidate_timeout: Duration::from_secs(5),
            max_blob_bytes: 128 << 30,
        }
    }
}

/// A [`ContentSource`] that answers from a store, and fills the store from upstream. Cheap to clone.
///
/// It spawns its own tasks on tokio's runtime, so that a client that disconnects does not stop work that others wait
/// for; [`PullThrough::drain`] waits for them.
#[derive(Debug, Clone)]
pub struct PullThrough {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn ContentStore>,
    upstream: Arc<dyn ContentSource>,
    options: PullThroughOptions,
    managed: Arc<dyn ManagedTags>,
    fills: Arc<Fills>,
    memory: ManifestCache,
    sizes: BlobSizes,
    lookups: SingleFlight<(ManifestKey, Freshness), Cached<Manifest>>,
    tasks: TaskTracker,
    /// Held while a manifest is written to the store, so that the newer of two manifests of a tag wins.
    storing: tokio::sync::Mutex<()>,
}

type ManifestKey = (RepositoryName, TagOrDigest);

impl PullThrough {
    /// Returns a cache in `store`, filled from `upstream`. No tag is managed.
    #[must_use]
    pub fn new(
        store: Arc<dyn ContentStore>,
        upstream: Arc<dyn ContentSource>,
        options: PullThroughOptions,
    ) -> Self {
        Self::with_managed_tags(store, upstream, options, Arc::new(NoManagedTags))
    }

    /// Returns a cache as [`PullThrough::new`] does, in which tags of `managed` are served without revalidation.
    #[must_use]
    pub fn with_managed_tags(
        store: Arc<dyn ContentStore>,
        upstream: Arc<dyn ContentSource>,
        options: PullThroughOptions,
        managed: Arc<dyn ManagedTags>,
    ) -> Self {
        let tasks = TaskTracker::new();
        Self {
            shared: Arc::new(Shared {
                store,
                upstream,
                options,
                managed,
                fills: Arc::new(Fills::new(tasks.clone(), options.max_blob_bytes)),
                memory: ManifestCache::new(),
                sizes: BlobSizes::new(),
                lookups: SingleFlight::new(tasks.clone()),
                tasks,
                storing: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Invalidates the cached manifests of a repository: another component has changed the store. A lookup that is in
    /// flight may still cache its result, until its next check.
    pub fn forget(&self, repository: &RepositoryName) {
        self.shared.memory.forget(repository);
    }

    /// Waits until all fetches are in the store, or have failed. For shutdown: the caller stops sending requests
    /// first, and bounds the wait.
    pub async fn drain(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    /// Caches `manifest` in memory under `key`; it is checked again at `check_at`.
    fn remember(
        &self,
        key: &ManifestKey,
        manifest: &Manifest,
        check_at: Option<Instant>,
        storage: StorageState,
    ) {
        self.sizes.note(&key.0, manifest);
        self.memory
            .put(key.clone(), Remembered { manifest: manifest.clone(), check_at, storage, stale: None });
    }

    /// Fetches the manifest from upstream, caches it, and stores it.
    ///
    /// The client does not wait for the store; until it is done, memory answers.
    async fn fetch_manifest(
        self: &Arc<Self>,
        key: &ManifestKey,
        freshness: Freshness,
    ) -> Result<Manifest, SourceError> {
        let (repository, at) = key;
        if let TagOrDigest::Digest(digest) = at {
            fill::verifier(repository, digest)?;
        }
        let manifest = self.upstream.manifest(repository, at, freshness).await?.content;
        self.remember(key, &manifest, self.next_check(key), StorageState::Pending);
        if matches!(at, TagOrDigest::Tag(_)) {
            // Clients that resolve a tag request its digest next, possibly before the store has it.
            let by_digest = TagOrDigest::Digest(manifest.digest().clone());
            self.remember(
                &(repository.clone(), by_digest),
                &manifest,
                next_store_check(),
                StorageState::Pending,
            );
        }
        self.store_in_background(key.clone(), manifest.clone());
        Ok(manifest)
    }

    /// Stores the manifest in the background. If that fails, memory records it, and the next request for it retries:
    /// a manifest that a full disk did not take is not lost on restart.
    fn store_in_background(self: &Arc<Self>, key: ManifestKey, manifest: Manifest) {
        let shared = self.clone();
        self.tasks.spawn(async move {
            let _in_order = shared.storing.lock().await;
            if shared.memory.get(&key).is_some_and(|now| now.manifest.digest() != manifest.digest()) {
                // The tag has moved since; the lookup that saw it move stores the new manifest.
                return;
            }
            let (repository, at) = &key;
            let tag = match at {
                TagOrDigest::Tag(tag) => Some(tag),
                TagOrDigest::Digest(_) => None,
            };
            let storage = match shared.store.put_manifest(repository, &manifest, tag).await {
                Ok(()) => StorageState::Stored,
                Err(error) => {
                    tracing::warn!(%repository, %at, error = error.chain(), "failed to store a manifest, retrying on its next request");
                    StorageState::Failed
                }
            };
            let digest = manifest.digest();
            shared.memory.settle(&key, digest, storage);
            if tag.is_some() && storage == StorageState::Stored {
                let by_digest = TagOrDigest::Digest(digest.clone());
                shared.memory.settle(&(repository.clone(), by_digest), digest, storage);
            }
        });
    }
}

fn lists_any(referrers: &Referrers) -> bool {
    serde_json::from_slice::<ImageIndex>(&referrers.index).is_ok_and(|index| !index.manifests.is_empty())
}

fn report_unless_absent(error: &SourceError) {
    if !error.is_not_found() {
        tracing::error!(error = error.chain(), "the store failed, requesting from upstream");
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentSource for PullThrough {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        // Fetches the manifest, not only its descriptor: a client that resolves a tag pulls its target next, and then
        // the tag has to be known.
        Ok(self.manifest(repository, at, freshness).await?.map(|manifest| manifest.descriptor()))
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        let key = (repository.clone(), at.clone());
        if let Some(served) = self.shared.fresh_in_memory(&key, freshness) {
            return Ok(served);
        }
        let shared = self.shared.clone();
        self.shared
            .lookups
            .run((key.clone(), freshness), || async move { shared.lookup(&key, freshness).await })
            .await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        self.shared.blob_size(repository, digest).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        self.shared.blob(repository, digest, range).await
    }

    async fn blob_location(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        valid_for: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        self.shared.blob_location(repository, digest, valid_for).await
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        match self.shared.upstream.tags(repository, page).await {
            Ok(tags) => Ok(tags),
            // Cached tags are better than none.
            Err(error) => self.shared.store.tags(repository, page).await.map_err(|_| error),
        }
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        match self.shared.upstream.referrers(repository, digest, artifact_type).await {
            Ok(referrers) => Ok(referrers),
            Err(error) => match self.shared.store.referrers(repository, digest, artifact_type).await {
                // An empty cached list does not mean that there are no referrers.
                Ok(cached) if lists_any(&cached) => Ok(cached),
                _ => Err(error),
            },
        }
    }

    /// Reports to the upstream. What the store holds was verified when it was written, and is verified again by the
    /// scrubber.
    fn report_corrupt(&self, repository: &RepositoryName, digest: &Digest) {
        self.shared.upstream.report_corrupt(repository, digest);
    }
}
