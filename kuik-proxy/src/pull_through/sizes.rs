//! Expected blob sizes from recently seen manifests: a stored blob of another size was truncated or modified, and is
//! fetched again rather than served.
//!
//! Invariant: a manifest applies to its own repository only, and once. If the manifest is wrong, the blob is fetched
//! once more in vain, and then served as it is.

use kuik_core::{
    content::{DecodedManifest, Digest, Manifest},
    reference::RepositoryName,
};
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};

/// Maximum number of remembered blobs, also per manifest.
const REMEMBERED: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(16_383);

/// Blob sizes by repository.
#[derive(Debug)]
pub(super) struct BlobSizes(Mutex<LruCache<(RepositoryName, Digest), u64>>);

impl BlobSizes {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    /// Records the sizes of an image's configuration and layers.
    pub(super) fn note(&self, repository: &RepositoryName, manifest: &Manifest) {
        let Ok(DecodedManifest::Image(image)) = manifest.decode() else { return };
        let mut sizes = self.sizes();
        for blob in std::iter::once(&image.config).chain(&image.layers).take(REMEMBERED.get()) {
            sizes.put((repository.clone(), blob.digest.clone()), blob.size);
        }
    }

    /// Whether `size` differs from the size in the blob's manifest.
    pub(super) fn contradict(&self, repository: &RepositoryName, digest: &Digest, size: u64) -> bool {
        self.of(repository, digest).is_some_and(|known| known != size)
    }

    /// Returns the size that a manifest of the repository gives a blob.
    pub(super) fn of(&self, repository: &RepositoryName, digest: &Digest) -> Option<u64> {
        self.sizes().get(&(repository.clone(), digest.clone())).copied()
    }

    /// Drops the recorded size: the blob's actual size is trusted from here on.
    pub(super) fn forget(&self, repository: &RepositoryName, digest: &Digest) {
        self.sizes().pop(&(repository.clone(), digest.clone()));
    }

    fn sizes(&self) -> MutexGuard<'_, LruCache<(RepositoryName, Digest), u64>> {
        self.0.lock()
    }
}
