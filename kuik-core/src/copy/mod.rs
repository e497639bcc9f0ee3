//! An image from its source into the cache, by platform.
//!
//! [`ImageCopier`] is what the controllers need of a cache: to put an image into it, to see whether it is there with all
//! its parts, and to let go of its tag. Digests never change: manifests and indexes are kept byte for byte, and of an
//! index only some manifests may be there.
//!
//! - [`PushCopier`] reads from the source and pushes into any OCI registry.
//! - [`WarmCopier`] reads through a cache that fills itself, so that an image crosses the internet once.

mod cache;
mod error;
mod image;
mod parts;
mod platform;
mod push;
mod referrers;
mod turns;
mod warm;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

pub use error::{CopyError, NoPlatform};
pub use image::SourceImage;
pub use platform::{InvalidPlatform, PlatformPattern, Platforms};
pub use push::PushCopier;
pub use warm::WarmCopier;

use crate::content::Digest;

/// Puts images into a cache, and looks after them there.
///
/// Dropping a future abandons what it does. What was put into the cache until then stays, and is found there next time.
#[async_trait]
pub trait ImageCopier: fmt::Debug + Send + Sync + 'static {
    /// Asks the image's source what the image is now, which costs no pull there.
    async fn ask_source(&self, image: &SourceImage) -> Result<Digest, CopyError>;

    /// Puts the image as its source has it now into the cache, under its own digest; what is there already is not
    /// fetched again.
    async fn copy(&self, image: &SourceImage, progress: &dyn Progress) -> Result<Copied, CopyError>;

    /// Whether the manifest and every blob of the image that is to be kept are in the cache.
    async fn verify(&self, image: &SourceImage) -> Result<Verdict, CopyError>;

    /// Lets go of the image's tag in the cache. Other tags, and digests that they name, stay. It is no error where there
    /// is no such tag.
    async fn remove(&self, image: &SourceImage) -> Result<(), CopyError>;
}

/// What was put into the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The image's digest.
    pub digest: Digest,
    /// Bytes of blobs that had to be brought into the cache.
    pub bytes: u64,
    /// What could not be copied and the image does without: signatures, and other referrers.
    pub without: Vec<String>,
}

impl Copied {
    /// An image of this digest, complete.
    #[must_use]
    pub fn new(digest: Digest, bytes: u64) -> Self {
        Self { digest, bytes, without: Vec::new() }
    }
}

/// What the cache has of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Everything that is to be kept.
    Complete {
        /// The image's digest there.
        digest: Digest,
    },
    /// Not everything.
    Missing {
        /// The first part that is not there, for people.
        what: String,
    },
}

/// Is told how copying goes on. It is called often, and must not block.
pub trait Progress: Send + Sync {
    /// So many bytes more are to be brought into the cache.
    fn expects(&self, bytes: u64);
    /// So many bytes more have been.
    fn advances(&self, bytes: u64);
}

/// Is told, and tells nobody.
impl Progress for () {
    fn expects(&self, _: u64) {}
    fn advances(&self, _: u64) {}
}

/// The platforms that are wanted now. They can change, where they are those of the nodes.
pub trait WantedPlatforms: fmt::Debug + Send + Sync + 'static {
    /// Them.
    fn wanted(&self) -> Arc<Platforms>;
}

/// They never change.
impl WantedPlatforms for Arc<Platforms> {
    fn wanted(&self) -> Arc<Platforms> {
        self.clone()
    }
}

/// They never change.
impl WantedPlatforms for Platforms {
    fn wanted(&self) -> Arc<Platforms> {
        Arc::new(self.clone())
    }
}
