//! Manually controlled upstream: it answers what the test says, when the test says, and counts requests.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use kuik_core::{
    content::{
        Blob, ByteRange, Cached, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers,
        SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    reference::RepositoryName,
};
use kuik_testkit::Gate;
use tokio::sync::mpsc;

/// Sends a blob's bytes, a chunk at a time: a send ends when the previous chunk has been taken. Dropping it ends the
/// blob.
pub(crate) type Feed = mpsc::Sender<Result<Bytes, SourceError>>;

/// The upstream.
#[derive(Debug, Default)]
pub(crate) struct ManualUpstream {
    blobs: Mutex<HashMap<Digest, Fed>>,
    granted: Mutex<HashSet<RepositoryName>>,
    manifests: Mutex<HashMap<String, Manifest>>,
    manifest_mode: Mutex<ManifestMode>,
    /// Delays the refusal of a blob to a repository without access.
    pub(crate) refusal: Gate,
    pub(crate) blobs_fetched: AtomicUsize,
    pub(crate) blobs_refused: AtomicUsize,
    pub(crate) sizes_asked: AtomicUsize,
    pub(crate) tags_resolved: AtomicUsize,
    pub(crate) manifests_fetched: AtomicUsize,
}

#[derive(Debug)]
struct Fed {
    size: Option<u64>,
    body: Option<mpsc::Receiver<Result<Bytes, SourceError>>>,
}

/// How manifest requests are answered.
#[derive(Debug, Clone, Default)]
pub(crate) enum ManifestMode {
    /// Correctly.
    #[default]
    Answers,
    /// With an error.
    Fails(SourceErrorKind),
    /// Never.
    Hangs,
    /// Tags are resolved; the manifest never arrives.
    HangsOnManifests,
}

impl ManualUpstream {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Gives a repository access to the blobs.
    pub(crate) fn grant(&self, repository: &RepositoryName) {
        self.granted.lock().unwrap().insert(repository.clone());
    }

    /// Adds a blob that can be fetched once; `size` is the announced size.
    pub(crate) fn feed(&self, digest: &Digest, size: Option<u64>) -> Feed {
        let (feed, body) = mpsc::channel(1);
        self.blobs.lock().unwrap().insert(digest.clone(), Fed { size, body: Some(body) });
        feed
    }

    /// Points a tag at a manifest; it may have had another target before.
    pub(crate) fn tag(&self, tag: &str, manifest: &Manifest) {
        let mut manifests = self.manifests.lock().unwrap();
        manifests.insert(tag.to_owned(), manifest.clone());
        manifests.insert(manifest.digest().to_string(), manifest.clone());
    }

    pub(crate) fn set_mood(&self, manifest_mode: ManifestMode) {
        *self.manifest_mode.lock().unwrap() = manifest_mode;
    }

    async fn named(&self, at: &TagOrDigest, hangs: bool) -> Result<Manifest, SourceError> {
        let manifest_mode = self.manifest_mode.lock().unwrap().clone();
        match manifest_mode {
            ManifestMode::Fails(kind) => return Err(SourceError::new(kind, "requested by the test")),
            ManifestMode::Hangs => std::future::pending().await,
            ManifestMode::HangsOnManifests if hangs => std::future::pending().await,
            ManifestMode::HangsOnManifests | ManifestMode::Answers => {}
        }
        self.manifests.lock().unwrap().get(at.as_str()).cloned().ok_or_else(|| absent("manifest"))
    }
}

pub(crate) fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

fn absent(what: &str) -> SourceError {
    SourceError::new(SourceErrorKind::NotFound, format!("find a {what} in the test's hands"))
}

#[async_trait]
impl ContentSource for ManualUpstream {
    async fn resolve(
        &self,
        _: &RepositoryName,
        at: &TagOrDigest,
        _: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        self.tags_resolved.fetch_add(1, Ordering::SeqCst);
        let manifest = self.named(at, false).await?;
        Ok(Cached::from_upstream(manifest.descriptor()))
    }

    async fn manifest(
        &self,
        _: &RepositoryName,
        at: &TagOrDigest,
        _: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        self.manifests_fetched.fetch_add(1, Ordering::SeqCst);
        self.named(at, true).await.map(Cached::from_upstream)
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        self.sizes_asked.fetch_add(1, Ordering::SeqCst);
        if !self.granted.lock().unwrap().contains(repository) {
            return Err(absent("blob"));
        }
        let blobs = self.blobs.lock().unwrap();
        let size = blobs.get(digest).ok_or_else(|| absent("blob"))?.size;
        Ok(Cached::from_upstream(size.unwrap_or_default()))
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        _: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        if !self.granted.lock().unwrap().contains(repository) {
            self.blobs_refused.fetch_add(1, Ordering::SeqCst);
            self.refusal.clone().opened().await;
            return Err(absent("blob"));
        }
        self.blobs_fetched.fetch_add(1, Ordering::SeqCst);
        let mut blobs = self.blobs.lock().unwrap();
        let fed = blobs.get_mut(digest).ok_or_else(|| absent("blob"))?;
        let body = fed.body.take().ok_or_else(|| absent("second feed of a blob"))?;
        let body = stream::unfold(body, async |mut body| body.recv().await.map(|chunk| (chunk, body)));
        Ok(Cached::from_upstream(Blob { size: fed.size, range: None, body: body.boxed() }))
    }

    async fn tags(&self, _: &RepositoryName, _: &TagPage) -> Result<TagList, SourceError> {
        Err(absent("list of tags"))
    }

    async fn referrers(
        &self,
        _: &RepositoryName,
        _: &Digest,
        _: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        Err(absent("list of referrers"))
    }
}
