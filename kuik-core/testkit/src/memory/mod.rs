//! In-memory store: the shortest [`RegistryStore`](kuik_core::content::RegistryStore) that passes the conformance suite.
//!
//! Invariant: every change happens under one lock, so readers see it whole. Content is never copied: blobs are returned
//! as slices of the stored bytes.

mod registry_store;
mod source;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use kuik_core::{
    content::{Digest, Manifest, MetadataName, SourceError, SourceErrorKind, TagOrDigest},
    reference::{RepositoryName, Tag},
};

/// A [`RegistryStore`](kuik_core::content::RegistryStore) in memory, for tests. Cheap to clone; clones share their content.
///
/// ```
/// use kuik_core::{content::{ContentSource, Freshness, RegistryStore}, reference::RepositoryName};
/// use kuik_testkit::MemoryStore;
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

/// Stored bytes with the time of their last write.
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
    metadata: BTreeMap<MetadataName, Bytes>,
}

/// An upload: its acknowledged bytes, whether it is open, and the time of the last append.
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
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores `bytes` under a digest that does not match, to simulate disk corruption.
    pub fn damage(&self, digest: &Digest, bytes: impl Into<Bytes>) {
        self.state().keep(digest.clone(), bytes.into());
    }

    /// Moves the modification time of all content back by this duration.
    pub fn age(&self, by: Duration) {
        for kept in self.state().blobs.values_mut() {
            kept.modified = kept.modified.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH);
        }
    }

    /// Returns the quarantined bytes of `digest`.
    #[must_use]
    pub fn quarantined(&self, digest: &Digest) -> Option<Bytes> {
        self.state().quarantined.get(digest).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn repository(&self, name: &RepositoryName) -> Result<Option<&Repository>, SourceError> {
        Ok(self.repositories.get(&path(name)?))
    }

    /// Returns the repository, if it exists.
    fn existing_mut(&mut self, name: &RepositoryName) -> Result<Option<&mut Repository>, SourceError> {
        Ok(self.repositories.get_mut(&path(name)?))
    }

    /// Returns the repository, and creates it if it is missing.
    fn repository_mut(&mut self, name: &RepositoryName) -> Result<&mut Repository, SourceError> {
        Ok(self.repositories.entry(path(name)?).or_default())
    }

    fn keep(&mut self, digest: Digest, bytes: Bytes) {
        self.blobs.insert(digest, Kept { bytes, modified: SystemTime::now() });
    }

    /// Returns the bytes of a blob in a repository.
    fn layer(&self, name: &RepositoryName, digest: &Digest) -> Result<Bytes, SourceError> {
        let linked = self.repository(name)?.is_some_and(|repository| repository.layers.contains(digest));
        let kept = self.blobs.get(digest).filter(|_| linked);
        kept.map(|kept| kept.bytes.clone())
            .ok_or_else(|| absent(format!("find blob {digest} of {name} in memory")))
    }

    /// Returns a manifest in a repository.
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

/// Returns the storage path of a repository, which is unique for all its names.
fn path(name: &RepositoryName) -> Result<String, SourceError> {
    name.encoded().map_err(|error| {
        SourceError::caused_by(
            SourceErrorKind::Unsupported,
            format!("find the storage path of {name}: its name cannot be encoded as a path"),
            error,
        )
    })
}

fn absent(attempted: String) -> SourceError {
    SourceError::new(SourceErrorKind::NotFound, attempted)
}
