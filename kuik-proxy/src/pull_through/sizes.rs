//! How large blobs are, by the manifests that were seen lately: what is kept in another size was cut off, by a disk or
//! by somebody, and is fetched again rather than served.
//!
//! Invariant: a manifest speaks for its own repository alone, and once. If it is the manifest that is wrong, the blob is
//! fetched once more for nothing, and then served as it is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kuik_core::{
    content::{DecodedManifest, Digest, Manifest},
    reference::RepositoryName,
};
use lru::LruCache;

/// How many blobs are remembered; of one manifest, too.
const REMEMBERED: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(16_383);

/// The sizes of blobs, by their repositories.
#[derive(Debug)]
pub(super) struct BlobSizes(Mutex<LruCache<(RepositoryName, Digest), u64>>);

impl BlobSizes {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    /// Remembers what an image says of its configuration and layers.
    pub(super) fn note(&self, repository: &RepositoryName, manifest: &Manifest) {
        let Ok(DecodedManifest::Image(image)) = manifest.decode() else { return };
        let mut sizes = self.sizes();
        for blob in std::iter::once(&image.config).chain(&image.layers).take(REMEMBERED.get()) {
            sizes.put((repository.clone(), blob.digest.clone()), blob.size);
        }
    }

    /// Whether a blob of `size` bytes is not what its manifest says.
    pub(super) fn contradict(&self, repository: &RepositoryName, digest: &Digest, size: u64) -> bool {
        self.of(repository, digest).is_some_and(|known| known != size)
    }

    /// The size that a manifest of the repository gives a blob.
    pub(super) fn of(&self, repository: &RepositoryName, digest: &Digest) -> Option<u64> {
        self.sizes().get(&(repository.clone(), digest.clone())).copied()
    }

    /// Believes a blob's size from here on, whatever was remembered.
    pub(super) fn forget(&self, repository: &RepositoryName, digest: &Digest) {
        self.sizes().pop(&(repository.clone(), digest.clone()));
    }

    fn sizes(&self) -> MutexGuard<'_, LruCache<(RepositoryName, Digest), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
