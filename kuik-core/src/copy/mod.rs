//! Image copying: from its source into the cache, by platform.
//!
//! [`ImageCopier`] is the interface of the controllers to a cache: copy an image, verify that it is complete, and
//! remove its tag. Digests never change: manifests and indexes are copied byte for byte, and an index may be sparse.
//!
//! - [`PushCopier`] reads from the source and pushes into any OCI registry.
//! - [`PrefetchCopier`] reads through a pull-through cache, so that an image is downloaded once.

mod cache;
mod error;
mod image;
mod keyed_lock;
mod parts;
mod platform;
mod prefetch;
mod push;
mod referrers;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

pub use error::{CopyError, NoPlatform};
pub use image::SourceImage;
pub use platform::{InvalidPlatform, PlatformPattern, Platforms};
pub use prefetch::PrefetchCopier;
pub use push::PushCopier;

use crate::content::Digest;

/// Copies images into a cache, verifies and removes them.
///
/// Dropping a future cancels the operation. Content written so far stays in the cache and is reused next time.
#[async_trait]
pub trait ImageCopier: fmt::Debug + Send + Sync + 'static {
    /// Returns the current digest of the image at its source, without counting as a pull there.
    async fn resolve_upstream(&self, image: &SourceImage) -> Result<Digest, CopyError>;

    /// Copies the current image into the cache, under its own digest. Content already in the cache is not fetched
    /// again. Returns [`CopyError::CacheFull`] if the cache has no room for the image or did not keep it, as early as
    /// that is known: a copy that succeeds is in the cache.
    async fn copy(&self, image: &SourceImage, progress: &dyn Progress) -> Result<Copied, CopyError>;

    /// Checks that the manifest and all wanted blobs of the image are in the cache.
    async fn verify(&self, image: &SourceImage) -> Result<Verdict, CopyError>;

    /// Removes the image's tag from the cache. Other tags and their content stay. Removing a missing tag succeeds.
    async fn remove(&self, image: &SourceImage) -> Result<(), CopyError>;
}

/// Result of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The image's digest.
    pub digest: Digest,
    /// Bytes of blobs transferred into the cache.
    pub bytes: u64,
    /// Size of the wanted parts of the image in bytes, transferred now or earlier; 0 if unknown.
    pub size: u64,
    /// Parts that could not be copied and were skipped: signatures and other referrers.
    pub skipped: Vec<String>,
}

impl Copied {
    /// Creates the result of a complete copy.
    #[must_use]
    pub fn new(digest: Digest, bytes: u64) -> Self {
        Self { digest, bytes, size: 0, skipped: Vec::new() }
    }
}

/// Result of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// All wanted content is in the cache.
    Complete {
        /// The image's digest in the cache.
        digest: Digest,
        /// Size of the wanted parts of the image in bytes; 0 if unknown.
        size: u64,
    },
    /// Content is missing.
    Missing {
        /// Description of the first missing part.
        what: String,
        /// Whether the cache has room for the image.
        room: Room,
    },
}

/// Whether a cache has room for an image, without evicting others that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Room {
    /// The cache cannot tell.
    Unknown,
    /// It has room.
    Free,
    /// It has none.
    Full,
}

/// Receives the progress of a copy. It is called often and must not block.
pub trait Progress: Send + Sync {
    /// Adds bytes to the total to transfer.
    fn expects(&self, bytes: u64);
    /// Adds bytes to those transferred.
    fn advances(&self, bytes: u64);
}

/// No-op progress receiver.
impl Progress for () {
    fn expects(&self, _: u64) {}
    fn advances(&self, _: u64) {}
}

/// Provider of the wanted platforms. They can change if they are those of the nodes.
pub trait WantedPlatforms: fmt::Debug + Send + Sync + 'static {
    /// Returns the current platforms.
    fn wanted(&self) -> Arc<Platforms>;
}

/// Fixed platforms.
impl WantedPlatforms for Arc<Platforms> {
    fn wanted(&self) -> Arc<Platforms> {
        self.clone()
    }
}

/// Fixed platforms.
impl WantedPlatforms for Platforms {
    fn wanted(&self) -> Arc<Platforms> {
        Arc::new(self.clone())
    }
}
