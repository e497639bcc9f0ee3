//! Conformance suite for stores, one behavior at a time, grouped by [`Capability`].
//!
//! A pull-through cache needs only a [`ContentStore`], which [`run_cache`] checks. A registry with pushes, deletes and
//! garbage collection needs a [`RegistryStore`], which [`run`] checks. Each [`Behavior`] states its demand
//! ([`Behavior::demand`]) and its capability, so that a store that implements some capabilities can be checked for those.
//!
//! The suite uses only the traits, so that it runs on memory, a directory, a bucket, or the store of an embedder. It works
//! in its own repositories below `conformance/`, with unique content, and does not clean up: use a disposable store. It
//! writes about 20 MB. Repeated runs on one store are possible, and concurrent runs too, except for behaviors that
//! [require exclusive use](Behavior::requires_exclusive_store).
//!
//! ```
//! use std::sync::Arc;
//!
//! use kuik_testkit::{MemoryStore, store_conformance};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! store_conformance::run_cache(Arc::new(MemoryStore::new())).await?;
//! store_conformance::run(Arc::new(MemoryStore::new())).await?;
//! # Ok::<(), store_conformance::Violation>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blobs;
mod cache_only;
mod check;
mod deletes;
mod enumeration;
mod isolation;
mod manifests;
mod metadata;
mod referrers;
mod tags;
mod uploads;

use std::sync::Arc;

use futures::future::BoxFuture;

pub use self::check::Violation;
use self::{cache_only::CacheOnly, check::Check};
use kuik_core::content::{ContentStore, RegistryStore};

/// A group of behaviors: what a program needs the store for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Blobs, manifests and tags are written and read: what a pull-through cache does. Needs a [`ContentStore`].
    Cache,
    /// Tags are listed: what a cache does while its upstream is unavailable. Needs a [`ContentStore`].
    TagLists,
    /// Referrers are listed. Needs a [`RegistryStore`].
    Referrers,
    /// Tags, manifests and blobs are deleted or quarantined. Needs a [`RegistryStore`].
    Deletes,
    /// Resumable uploads. Needs a [`RegistryStore`].
    Uploads,
    /// Metadata entries of maintenance. Needs a [`RegistryStore`].
    Metadata,
    /// Everything stored is enumerated, for garbage collection and quotas. Needs a [`RegistryStore`].
    Enumeration,
}

/// A behavior that a capability of a store requires.
#[derive(Debug, Clone, Copy)]
pub struct Behavior {
    name: &'static str,
    capability: Capability,
    demand: &'static str,
    run: fn(Check) -> BoxFuture<'static, Result<(), Violation>>,
    alone: bool,
}

impl Behavior {
    /// The name of the behavior: `blob-ranges`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The capability that requires it.
    #[must_use]
    pub fn capability(&self) -> Capability {
        self.capability
    }

    /// The demand, in one sentence.
    #[must_use]
    pub fn demand(&self) -> &'static str {
        self.demand
    }

    /// Whether the check requires exclusive use of the store.
    #[must_use]
    pub fn requires_exclusive_store(&self) -> bool {
        self.alone
    }

    /// Checks the behavior of `store`.
    ///
    /// # Errors
    /// Returns the violation, if there is one.
    pub async fn check(&self, store: Arc<dyn RegistryStore>) -> Result<(), Violation> {
        (self.run)(Check::new(self.name, store)).await
    }
}

/// Checks the behaviors of `store` that a pull-through cache relies on ([`Capability::Cache`] and
/// [`Capability::TagLists`]), up to the first violation.
///
/// # Errors
/// Returns the first violation, with the name of the behavior.
pub async fn run_cache(store: Arc<dyn ContentStore>) -> Result<(), Violation> {
    let store: Arc<dyn RegistryStore> = Arc::new(CacheOnly(store));
    for capability in [Capability::Cache, Capability::TagLists] {
        for behavior in behaviors_of(capability) {
            behavior.check(store.clone()).await?;
        }
    }
    Ok(())
}

/// Checks all behaviors of `store`, up to the first violation.
///
/// # Errors
/// Returns the first violation, with the name of the behavior.
pub async fn run(store: Arc<dyn RegistryStore>) -> Result<(), Violation> {
    for behavior in BEHAVIORS {
        behavior.check(store.clone()).await?;
    }
    Ok(())
}

/// Returns the behaviors of a capability.
pub fn behaviors_of(capability: Capability) -> impl Iterator<Item = Behavior> {
    BEHAVIORS.into_iter().filter(move |behavior| behavior.capability == capability)
}

const fn behavior(
    capability: Capability,
    name: &'static str,
    demand: &'static str,
    run: fn(Check) -> BoxFuture<'static, Result<(), Violation>>,
) -> Behavior {
    Behavior { name, capability, demand, run, alone: false }
}

const fn alone(behavior: Behavior) -> Behavior {
    Behavior { alone: true, ..behavior }
}

/// All behaviors.
pub const BEHAVIORS: [Behavior; 27] = [
    behavior(
        Capability::Cache,
        "blob-atomicity",
        "a blob is visible only after it is published, and its writer can read it back, also afterwards",
        |check| Box::pin(blobs::atomicity(check)),
    ),
    behavior(
        Capability::Cache,
        "blob-verification",
        "publishing fails with `Storage` if the witness is for another number of bytes than were written",
        |check| Box::pin(blobs::verification(check)),
    ),
    behavior(
        Capability::Cache,
        "blob-ranges",
        "ranges are clamped to the blob, report its whole size, and are `RangeNotSatisfiable` if outside",
        |check| Box::pin(blobs::ranges(check)),
    ),
    behavior(
        Capability::Cache,
        "blob-concurrent-writers",
        "several writers may publish one blob into different repositories",
        |check| Box::pin(blobs::concurrent_writers(check)),
    ),
    behavior(
        Capability::Cache,
        "manifest-bytes",
        "a manifest is returned byte for byte by digest and by tag, and resolves to its descriptor",
        |check| Box::pin(manifests::bytes(check)),
    ),
    behavior(
        Capability::Cache,
        "manifest-other-algorithm",
        "a manifest with a sha512 digest is found by that digest",
        |check| Box::pin(manifests::other_algorithm(check)),
    ),
    behavior(
        Capability::Cache,
        "tag-moves",
        "a tag points to the manifest of the last push, and the earlier manifest stays",
        |check| Box::pin(manifests::tag_moves(check)),
    ),
    behavior(
        Capability::Cache,
        "tag-concurrent-pushes",
        "concurrent pushes to one tag leave every manifest, and the tag at one of them",
        |check| Box::pin(manifests::concurrent_pushes(check)),
    ),
    behavior(
        Capability::Cache,
        "isolation",
        "content is readable only through the repositories that it was published or linked into",
        |check| Box::pin(isolation::of_repositories(check)),
    ),
    behavior(
        Capability::TagLists,
        "tag-pages",
        "tags are listed in byte order, in pages, from any starting point",
        |check| Box::pin(tags::pages(check)),
    ),
    behavior(
        Capability::TagLists,
        "tag-list-empty",
        "the tags of a missing repository are `NotFound`, those of one without tags an empty list",
        |check| Box::pin(tags::none(check)),
    ),
    behavior(
        Capability::Deletes,
        "delete-tag-alone",
        "deleting a tag keeps its manifest and other tags, and a missing tag is `NotFound`",
        |check| Box::pin(deletes::tag(check)),
    ),
    behavior(
        Capability::Deletes,
        "delete-manifest-with-tags",
        "deleting a manifest deletes its tags in that repository, and nothing else",
        |check| Box::pin(deletes::manifest(check)),
    ),
    behavior(
        Capability::Deletes,
        "delete-blob",
        "a blob is unlinked from one repository, stays in others, and can be linked again",
        |check| Box::pin(deletes::blob(check)),
    ),
    behavior(
        Capability::Deletes,
        "delete-isolation",
        "content and uploads of another repository are `NotFound` for deletes and uploads",
        |check| Box::pin(isolation::of_deletes(check)),
    ),
    behavior(
        Capability::Deletes,
        "remove-bytes",
        "removed bytes are absent, cannot be linked, and removing them again succeeds",
        |check| Box::pin(deletes::bytes(check)),
    ),
    behavior(
        Capability::Deletes,
        "quarantine",
        "quarantined bytes are absent until they are published again",
        |check| Box::pin(deletes::quarantine(check)),
    ),
    behavior(
        Capability::Uploads,
        "upload-resumed",
        "an upload resumes at its acknowledged offset, and is a blob once it is finished",
        |check| Box::pin(uploads::resumed(check)),
    ),
    behavior(
        Capability::Uploads,
        "upload-exclusive",
        "an open upload is `Unavailable` to others, an unknown one `NotFound`",
        |check| Box::pin(uploads::exclusive(check)),
    ),
    behavior(
        Capability::Uploads,
        "upload-wrong-digest",
        "a wrong digest is `InvalidContent`, ends the upload and publishes nothing",
        |check| Box::pin(uploads::wrong_digest(check)),
    ),
    behavior(Capability::Uploads, "upload-canceled", "a canceled upload is gone", |check| {
        Box::pin(uploads::canceled(check))
    }),
    behavior(
        Capability::Uploads,
        "upload-concurrent",
        "concurrent uploads, also of one blob, do not affect each other",
        |check| Box::pin(uploads::concurrent(check)),
    ),
    alone(behavior(
        Capability::Uploads,
        "upload-purged",
        "only idle uploads that are not open are purged, and they are counted",
        |check| Box::pin(uploads::purged(check)),
    )),
    behavior(
        Capability::Referrers,
        "referrers",
        "referrers are listed by subject and artifact type, also those under the fallback tag",
        |check| Box::pin(referrers::listed(check)),
    ),
    behavior(
        Capability::Metadata,
        "metadata",
        "metadata entries are stored, replaced, listed and removed; too large ones are `Unsupported`",
        |check| Box::pin(metadata::stored(check)),
    ),
    behavior(
        Capability::Enumeration,
        "enumeration",
        "everything stored is listed once, with size and time, and nothing else",
        |check| Box::pin(enumeration::complete(check)),
    ),
    behavior(
        Capability::Enumeration,
        "blob-stored-once",
        "a blob with several concurrent writers is listed once",
        |check| Box::pin(blobs::stored_once(check)),
    ),
];
