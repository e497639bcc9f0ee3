//! A store in memory: the shortest [`ManagedStore`](crate::content::ManagedStore) that passes the conformance suite.
//!
//! Invariant: everything is changed under one lock, so every change is seen whole. Content is never copied: blobs are
//! handed out as slices of what is kept.

mod managed;
mod source;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{
    content::{Digest, Manifest, NoteName, SourceError, SourceErrorKind, TagOrDigest},
    reference::{RepositoryName, Tag},
};

/// A [`ManagedStore`](crate::content::ManagedStore) in memory, for tests. Cheap to clone; clones share their content.
///
/// ```
/// use kuik_core::{
///     content::{ContentSource, Freshness, ManagedStore},
///     reference::RepositoryName,
///     testkit::MemoryStore,
/// };
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (store, app) = (MemoryStore::new(), RepositoryName::local("app")?);
/// let id = store.start_upload(&app).await?;
/// let mut upload = store.upload(&app, &id).await?;
/// upload.append(&["hello".into()]).await?;
/// let digest = kuik_core::content::Digest::sha256(b"hello");
/// upload.finish(&digest).await?;
/// assert_eq!(store.blob_size(&app, &digest).await?.content, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    blobs: BTreeMap<Digest, Kept>,
    quarantined: BTreeMap<Digest, Bytes>,
    repositories: BTreeMap<String, Repository>,
}

/// Bytes, and when they came.
#[derive(Debug, Clone)]
struct Kept {
    bytes: Bytes,
    modified: SystemTime,
}

#[derive(Debug, Default)]
struct Repository {
    layers: BTreeSet<Digest>,
    manifests: BTreeSet<Digest>,
    tags: BTreeMap<Tag, Digest>,
    uploads: BTreeMap<String, Uploaded>,
    notes: BTreeMap<NoteName, Bytes>,
}

/// An upload: what was acknowledged, whether somebody has it, and since when nothing was appended.
#[derive(Debug)]
struct Uploaded {
    data: Vec<u8>,
    leased: bool,
    used: SystemTime,
}

impl Default for Uploaded {
    fn default() -> Self {
        Self { data: Vec::new(), leased: false, used: SystemTime::now() }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps `bytes` under a digest that they do not have, as a disk does that has gone bad.
    pub fn damage(&self, digest: &Digest, bytes: impl Into<Bytes>) {
        self.state().keep(digest.clone(), bytes.into());
    }

    /// Makes everything so much older, as if it had been written so long before.
    pub fn age(&self, by: Duration) {
        for kept in self.state().blobs.values_mut() {
            kept.modified = kept.modified.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH);
        }
    }

    /// The bytes that were set aside under `digest`.
    #[must_use]
    pub fn quarantined(&self, digest: &Digest) -> Option<Bytes> {
        self.state().quarantined.get(digest).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn repository(&self, name: &RepositoryName) -> Result<Option<&Repository>, SourceError> {
        Ok(self.repositories.get(&path(name)?))
    }

    /// The repository, to take something out of it.
    fn existing_mut(&mut self, name: &RepositoryName) -> Result<Option<&mut Repository>, SourceError> {
        Ok(self.repositories.get_mut(&path(name)?))
    }

    /// The repository, which is created where it is missing.
    fn repository_mut(&mut self, name: &RepositoryName) -> Result<&mut Repository, SourceError> {
        Ok(self.repositories.entry(path(name)?).or_default())
    }

    fn keep(&mut self, digest: Digest, bytes: Bytes) {
        self.blobs.insert(digest, Kept { bytes, modified: SystemTime::now() });
    }

    /// The bytes of a blob that the repository has.
    fn layer(&self, name: &RepositoryName, digest: &Digest) -> Result<Bytes, SourceError> {
        let linked = self.repository(name)?.is_some_and(|repository| repository.layers.contains(digest));
        let kept = self.blobs.get(digest).filter(|_| linked);
        kept.map(|kept| kept.bytes.clone())
            .ok_or_else(|| absent(format!("find blob {digest} of {name} in memory")))
    }

    /// A manifest that the repository has.
    fn manifest(&self, name: &RepositoryName, at: &TagOrDigest) -> Result<Manifest, SourceError> {
        let repository = self.repository(name)?;
        let digest = repository.and_then(|repository| match at {
            TagOrDigest::Tag(tag) => repository.tags.get(tag),
            TagOrDigest::Digest(digest) => repository.manifests.get(digest),
        });
        digest
            .and_then(|digest| Some((digest, self.blobs.get(digest)?.bytes.clone())))
            .and_then(|(digest, bytes)| Manifest::new(None, bytes).ok()?.verified_as(digest).ok())
            .ok_or_else(|| absent(format!("find manifest {at} of {name} in memory")))
    }
}

/// Under what a repository is kept: its path, so that it has one place however it is named.
fn path(name: &RepositoryName) -> Result<String, SourceError> {
    name.encoded().map_err(|error| {
        SourceError::caused_by(
            SourceErrorKind::Unsupported,
            format!("find where {name} is kept: its name has no form as a path"),
            error,
        )
    })
}

fn absent(attempted: String) -> SourceError {
    SourceError::new(SourceErrorKind::NotFound, attempted)
}
