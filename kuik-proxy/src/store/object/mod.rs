//! Content in a bucket: S3, Google Cloud Storage, Azure Blob Storage, or what speaks like one of them.
//!
//! The keys are those of the layout, so that a bucket that Docker's registry wrote is served as it is, and the other
//! way round. An object is there whole or not at all: every provider promises that, and that a list shows what was
//! written before it, so nothing here needs a lock between processes. Several may use one bucket at once.
//!
//! One room for each thing that is done: `reads`, `tags`, `writes` and `writer`, `uploads`, `deletes`, `referrers`,
//! `walk`, `notes`, `announcements`. All of them speak to the provider through `bucket`.

mod announcements;
mod bucket;
mod client;
mod deletes;
mod links;
mod managed;
mod multipart;
mod notes;
mod open;
mod reads;
mod referrers;
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

pub use self::open::{BucketOptions, InvalidBucket, Provider};
use self::{bucket::Bucket, referrers::Indexed, uploads::Leases};
use super::layout;

/// How many locks all repositories share: enough that two which are busy seldom meet.
const STRIPES: usize = 64;

/// A [`ManagedStore`](kuik_core::content::ManagedStore) in a bucket, in the layout of Docker's registry. Cheap to
/// clone.
///
/// What it has acknowledged is what its provider has acknowledged. A blob that is being fetched lies in an unlinked
/// file of the scratch directory until it is verified, and then goes to the bucket as a whole; that takes up to three
/// parts of at least 8 MiB, which are mapped from that file. A push has up to three parts of at least 8 MiB in memory.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bucket: Bucket,
    scratch_dir: PathBuf,
    /// Taken to read by whoever keeps manifests in a repository, and to write by whoever deletes them.
    locks: [RwLock<()>; STRIPES],
    leases: Leases,
    indexed: Indexed,
}

impl ObjectStorage {
    /// The part of `bucket` below `prefix`, which is empty or names without `/` at either end; `name` is what errors
    /// call it. Blobs that are being fetched lie in `scratch_dir`.
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
    /// The lock of a repository.
    fn lock(&self, repository: &RepositoryKey) -> Option<&RwLock<()>> {
        let mut hasher = DefaultHasher::new();
        repository.hash(&mut hasher);
        let stripe = usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or_default();
        self.locks.get(stripe)
    }
}

/// Below which key one repository is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RepositoryKey(String);

impl RepositoryKey {
    fn of(repository: &RepositoryName) -> Result<Self, SourceError> {
        Ok(Self(format!("{}/{}", layout::REPOSITORIES, layout::encoded(repository)?)))
    }

    /// The key of something within the repository.
    fn at(&self, name: impl AsRef<str>) -> String {
        format!("{}/{}", self.0, name.as_ref())
    }
}

/// What says that bytes which were there already were published or linked again.
fn renewed(digest: &Digest) -> String {
    format!("{RENEWED}/{}/{}", digest.algorithm_name(), digest.encoded())
}

/// Below which key that is said.
const RENEWED: &str = ".kuik/renewed";
