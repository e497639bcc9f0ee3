//! A cache that fills itself: a store in front of an upstream.
//!
//! [`PullThrough`] is a [`ContentSource`] over a [`ContentStore`] and another source. What the store has is served
//! from it; what it lacks is fetched from upstream once, for everyone who asks, and kept.
//!
//! A manifest or blob that is asked for by digest is never checked again. A tag is: after a while, or at once for
//! [`Freshness::Revalidate`], upstream is asked where it points. Where upstream cannot say, what the cache has is
//! served, marked [`Origin::Stale`]: a registry that is down, or that has lost the image, stops nobody.
//!
//! [`Origin::Stale`]: kuik_core::content::Origin::Stale

mod blobs;
mod coalesce;
mod consent;
mod memory;
mod sizes;
mod tags;
mod told;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kuik_core::{
    content::{
        Blob, BlobLocation, ByteRange, ContentSource, ContentStore, Descriptor, Digest, Freshness,
        ImageIndex, Manifest, Referrers, Served, SourceError, TagList, TagOrDigest, TagPage,
    },
    reference::RepositoryName,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use self::told::Told;
use self::{
    coalesce::Coalesced,
    memory::{Keeping, ManifestMemory, Remembered},
    sizes::BlobSizes,
    tags::next_look,
};
use crate::fill::{self, Fills};

/// How a [`PullThrough`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullThroughOptions {
    /// When upstream is asked whether a cached tag has moved.
    pub revalidate: Revalidate,
    /// How long that question, and then the new manifest, may take before the cached answer is served. 5 s each.
    pub revalidate_timeout: Duration,
    /// A blob that is larger is refused. 128 GiB.
    pub max_blob_bytes: u64,
}

/// When upstream is asked whether a cached tag has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revalidate {
    /// Only where a request asks for it.
    Never,
    /// When the last check is older than this.
    After(Duration),
}

impl Default for PullThroughOptions {
    fn default() -> Self {
        Self {
            revalidate: Revalidate::After(Duration::from_secs(60)),
            revalidate_timeout: Duration::from_secs(5),
            max_blob_bytes: 128 << 30,
        }
    }
}

/// A [`ContentSource`] that answers from a store, and fills the store from upstream. Cheap to clone.
///
/// It runs tasks of its own on tokio's runtime, so that a client that leaves does not stop what others wait for;
/// [`PullThrough::drain`] waits for them.
#[derive(Debug, Clone)]
pub struct PullThrough {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn ContentStore>,
    upstream: Arc<dyn ContentSource>,
    options: PullThroughOptions,
    fills: Arc<Fills>,
    memory: ManifestMemory,
    sizes: BlobSizes,
    look_ups: Coalesced<(ManifestKey, Freshness), Served<Manifest>>,
    tasks: TaskTracker,
    /// Held while a manifest is given to the store, so that of two that a tag named the later one stays.
    keeping: tokio::sync::Mutex<()>,
}

type ManifestKey = (RepositoryName, TagOrDigest);

impl PullThrough {
    /// A cache in `store`, filled from `upstream`.
    #[must_use]
    pub fn new(
        store: Arc<dyn ContentStore>,
        upstream: Arc<dyn ContentSource>,
        options: PullThroughOptions,
    ) -> Self {
        let tasks = TaskTracker::new();
        Self {
            shared: Arc::new(Shared {
                store,
                upstream,
                options,
                fills: Arc::new(Fills::new(tasks.clone(), options.max_blob_bytes)),
                memory: ManifestMemory::new(),
                sizes: BlobSizes::new(),
                look_ups: Coalesced::new(tasks.clone()),
                tasks,
                keeping: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Forgets what it remembers of a repository's manifests: somebody else has changed the store. What it is
    /// looking up at this moment it may remember all the same, until it is due for a check.
    pub fn forget(&self, repository: &RepositoryName) {
        self.shared.memory.forget(repository);
    }

    /// Waits until everything that is being fetched is in the store, or has failed. For the end of a process: the
    /// caller stops asking first, and bounds the wait.
    pub async fn drain(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    /// Keeps `manifest` in memory under `key`; it is checked again at `check_at`.
    fn remember(&self, key: &ManifestKey, manifest: &Manifest, check_at: Option<Instant>, keeping: Keeping) {
        self.sizes.note(&key.0, manifest);
        self.memory.put(key.clone(), Remembered { manifest: manifest.clone(), check_at, keeping });
    }

    /// Fetches the manifest from upstream, remembers it, and keeps it in the store.
    ///
    /// The store's work is not the client's to wait for; until it is done, memory answers.
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
        self.remember(key, &manifest, self.next_check(), Keeping::Pending);
        if matches!(at, TagOrDigest::Tag(_)) {
            // Clients that resolve a tag ask for its digest next, which may be sooner than the store has it.
            let by_digest = TagOrDigest::Digest(manifest.digest().clone());
            self.remember(&(repository.clone(), by_digest), &manifest, next_look(), Keeping::Pending);
        }
        self.keep(key.clone(), manifest.clone());
        Ok(manifest)
    }

    /// Puts the manifest into the store, without anybody who waits for it. Where the store cannot keep it, memory
    /// says so, and the next one who asks gives it to the store again: what a full disk did not take is not lost to
    /// the next start.
    fn keep(self: &Arc<Self>, key: ManifestKey, manifest: Manifest) {
        let shared = self.clone();
        self.tasks.spawn(async move {
            let _in_order = shared.keeping.lock().await;
            if shared.memory.get(&key).is_some_and(|now| now.manifest.digest() != manifest.digest()) {
                // The tag has moved on meanwhile, and what it names now is kept by whoever saw it move.
                return;
            }
            let (repository, at) = &key;
            let tag = match at {
                TagOrDigest::Tag(tag) => Some(tag),
                TagOrDigest::Digest(_) => None,
            };
            let keeping = match shared.store.put_manifest(repository, &manifest, tag).await {
                Ok(()) => Keeping::Kept,
                Err(error) => {
                    tracing::warn!(%repository, %at, error = error.chain(), "a manifest could not be kept");
                    Keeping::Failed
                }
            };
            let digest = manifest.digest();
            shared.memory.settle(&key, digest, keeping);
            if tag.is_some() && keeping == Keeping::Kept {
                let by_digest = TagOrDigest::Digest(digest.clone());
                shared.memory.settle(&(repository.clone(), by_digest), digest, keeping);
            }
        });
    }
}

fn lists_any(referrers: &Referrers) -> bool {
    serde_json::from_slice::<ImageIndex>(&referrers.index).is_ok_and(|index| !index.manifests.is_empty())
}

fn report_unless_absent(error: &SourceError) {
    if !error.is_not_found() {
        tracing::error!(error = error.chain(), "the store failed; upstream is asked instead");
    }
}

#[async_trait]
impl ContentSource for PullThrough {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        // The manifest is fetched, not only looked at: whoever resolves a tag pulls what it names next, and then
        // the tag has to be known.
        Ok(self.manifest(repository, at, freshness).await?.map(|manifest| manifest.descriptor()))
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        let key = (repository.clone(), at.clone());
        if let Some(manifest) = self.shared.fresh_in_memory(&key, freshness) {
            return Ok(Served::from_cache(manifest));
        }
        let shared = self.shared.clone();
        self.shared
            .look_ups
            .run((key.clone(), freshness), || async move { shared.look_up(&key, freshness).await })
            .await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        self.shared.blob_size(repository, digest).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
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
            // The tags that are cached are better than none.
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
                // None that are cached is no news of how many there are.
                Ok(kept) if lists_any(&kept) => Ok(kept),
                _ => Err(error),
            },
        }
    }
}
