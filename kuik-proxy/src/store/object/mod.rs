//! Object storage: content in a bucket of S3, Google Cloud Storage, Azure Blob Storage or a compatible provider.
//!
//! The keys are those of the layout, so that a bucket written by Docker's registry is served unchanged, and the other
//! way round. Every provider guarantees that an object is written as a whole or not at all, and that a list shows
//! earlier writes, so no lock between processes is needed. Several may use one bucket at once.
//!
//! One module for each kind of operation: `reads`, `tags`, `writes` and `writer`, `uploads`, `deletes`, `referrers`,
//! `walk`, `metadata`, `announcements`. All of them access the provider through `bucket`.

mod announcements;
mod bucket;
mod client;
mod deletes;
mod links;
mod metadata;
mod multipart;
mod open;
mod reads;
mod referrers;
mod registry_store;
mod tags;
mod uploads;
mod walk;
mod writer;
mod writes;

use std::{
    array,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use kuik_core::{
    content::{Digest, SourceError},
    reference::RepositoryName,
};
use object_store::ObjectStore;
use tokio::sync::RwLock;

pub use self::open::InvalidBucket;
use self::{bucket::Bucket, referrers::Indexed, uploads::Leases};
use super::layout;

/// Number of locks that all repositories share, so that two busy ones rarely collide.
const STRIPES: usize = 64;

/// A [`RegistryStore`](kuik_core::content::RegistryStore) in a bucket, in the layout of Docker's registry. Cheap to
/// clone.
///
/// It acknowledges what its provider has acknowledged. A blob being fetched is in an unlinked file of the scratch
/// directory until it is verified, and is then sent to the bucket as a whole; that takes up to three parts of at
/// least 8 MiB, which are mapped from that file. A push has up to three parts of at least 8 MiB in memory.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bucket: Bucket,
    scratch_dir: PathBuf,
    /// Read-locked by writers of manifests, write-locked by deletes of manifests.
    locks: [RwLock<()>; STRIPES],
    leases: Leases,
    indexed: Indexed,
}

impl ObjectStorage {
    /// Creates a store in the part of `bucket` below `prefix`, which is empty or has no `/` at either end; `name` is
    /// for errors. `scratch_dir` holds blobs that are being fetched.
    #[must_use]
    pub fn new(bucket: Arc<dyn ObjectStore>, name: &str, prefix: &str, scratch_dir: &Path) -> Self {
        Self::over(Bucket::new(bucket, name.to_owned(), prefix.to_owned()), scratch_dir)
    }

    fn over(bucket: Bucket, scratch_dir: &Path) -> Self {
        let shared = Shared {
            bucket,
            scratch_dir: scratch_dir.to_owned(),
            locks: array::from_fn(|_| RwLock::default()),
            leases: Leases::default(),
            indexed: Indexed::default(),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Shared {
    /// Returns the lock of a repository.
    fn lock(&self, repository: &RepositoryKey) -> Option<&RwLock<()>> {
        let mut hasher = DefaultHasher::new();
        repository.hash(&mut hasher);
        let stripe = usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or_default();
        self.locks.get(stripe)
    }
}

/// Key prefix of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RepositoryKey(String);

impl RepositoryKey {
    fn of(repository: &RepositoryName) -> Result<Self, SourceError> {
        Ok(Self(format!("{}/{}", layout::REPOSITORIES, layout::encoded(repository)?)))
    }

    /// Returns a key within the repository.
    fn at(&self, name: impl AsRef<str>) -> String {
        format!("{}/{}", self.0, name.as_ref())
    }
}

/// Age marker of existing bytes that were published or linked again.
fn renewed(digest: &Digest) -> String {
    format!("{RENEWED}/{}/{}", digest.algorithm_name(), digest.encoded())
}

/// Key prefix of age markers.
const RENEWED: &str = ".kuik/renewed";
