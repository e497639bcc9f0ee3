//! An upstream in the test's hands: it answers what the test says, when the test says, and counts.

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
        Blob, ByteRange, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers, Served,
        SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    reference::RepositoryName,
    testkit::Gate,
};
use tokio::sync::mpsc;

/// Sends a blob's bytes, a chunk at a time: a send ends when the one before it has been taken. Dropping it ends the
/// blob.
pub(crate) type Feed = mpsc::Sender<Result<Bytes, SourceError>>;

/// The upstream.
#[derive(Debug, Default)]
pub(crate) struct HandFed {
    blobs: Mutex<HashMap<Digest, Fed>>,
    granted: Mutex<HashSet<RepositoryName>>,
    manifests: Mutex<HashMap<String, Manifest>>,
    mood: Mutex<Mood>,
    /// Holds back the refusal of a blob to who may not have it.
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

/// How questions about manifests are answered.
#[derive(Debug, Clone, Default)]
pub(crate) enum Mood {
    /// Truly.
    #[default]
    Answers,
    /// With an error.
    Fails(SourceErrorKind),
    /// Never.
    Hangs,
    /// Where a tag points is told; the manifest never comes.
    HangsOnManifests,
}

impl HandFed {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Lets a repository have the blobs.
    pub(crate) fn grant(&self, repository: &RepositoryName) {
        self.granted.lock().unwrap().insert(repository.clone());
    }

    /// A blob that can be fetched once; `size` is what is announced.
    pub(crate) fn feed(&self, digest: &Digest, size: Option<u64>) -> Feed {
        let (feed, body) = mpsc::channel(1);
        self.blobs.lock().unwrap().insert(digest.clone(), Fed { size, body: Some(body) });
        feed
    }

    /// A manifest under a tag, which may have pointed elsewhere before.
    pub(crate) fn tag(&self, tag: &str, manifest: &Manifest) {
        let mut manifests = self.manifests.lock().unwrap();
        manifests.insert(tag.to_owned(), manifest.clone());
        manifests.insert(manifest.digest().to_string(), manifest.clone());
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn named(&self, at: &TagOrDigest, hangs: bool) -> Result<Manifest, SourceError> {
        let mood = self.mood.lock().unwrap().clone();
        match mood {
            Mood::Fails(kind) => return Err(SourceError::new(kind, "the test says so")),
            Mood::Hangs => std::future::pending().await,
            Mood::HangsOnManifests if hangs => std::future::pending().await,
            Mood::HangsOnManifests | Mood::Answers => {}
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
impl ContentSource for HandFed {
    async fn resolve(
        &self,
        _: &RepositoryName,
        at: &TagOrDigest,
        _: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        self.tags_resolved.fetch_add(1, Ordering::SeqCst);
        let manifest = self.named(at, false).await?;
        Ok(Served::from_upstream(manifest.descriptor()))
    }

    async fn manifest(
        &self,
        _: &RepositoryName,
        at: &TagOrDigest,
        _: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        self.manifests_fetched.fetch_add(1, Ordering::SeqCst);
        self.named(at, true).await.map(Served::from_upstream)
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        self.sizes_asked.fetch_add(1, Ordering::SeqCst);
        if !self.granted.lock().unwrap().contains(repository) {
            return Err(absent("blob"));
        }
        let blobs = self.blobs.lock().unwrap();
        let size = blobs.get(digest).ok_or_else(|| absent("blob"))?.size;
        Ok(Served::from_upstream(size.unwrap_or_default()))
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        _: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
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
        Ok(Served::from_upstream(Blob { size: fed.size, range: None, body: body.boxed() }))
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
