//! What every [`ManagedStore`] must do, one behaviour at a time.
//!
//! The suite knows the trait alone, so that it runs on memory, a directory, a bucket, or the store of an embedder. It
//! works in repositories of its own below `conformance/`, with content that nobody else has, and leaves what it does
//! not need to delete: give it a store that can be thrown away. It can be run on one store again and again, and but for
//! what [needs the store alone](Behaviour::needs_the_store_alone) at once.
//!
//! ```
//! use std::sync::Arc;
//!
//! use kuik_core::testkit::{MemoryStore, store_conformance};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! store_conformance::run(Arc::new(MemoryStore::new())).await?;
//! # Ok::<(), store_conformance::Violation>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blobs;
mod check;
mod deletes;
mod isolation;
mod manifests;
mod notes;
mod referrers;
mod tags;
mod uploads;
mod walks;

use std::sync::Arc;

use futures::future::BoxFuture;

use self::check::Check;
pub use self::check::Violation;
use crate::content::ManagedStore;

/// Something that every store must do.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    name: &'static str,
    run: fn(Check) -> BoxFuture<'static, Result<(), Violation>>,
    alone: bool,
}

impl Behaviour {
    /// What it is called: `blob-ranges`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether nobody else may use the store while this is checked.
    #[must_use]
    pub fn needs_the_store_alone(&self) -> bool {
        self.alone
    }

    /// Checks that `store` does it.
    ///
    /// # Errors
    /// What the store did instead.
    pub async fn check(&self, store: Arc<dyn ManagedStore>) -> Result<(), Violation> {
        (self.run)(Check::new(self.name, store)).await
    }
}

/// Checks that `store` does all of it; ends with the first behaviour that it has not.
///
/// # Errors
/// What the store did instead, with the name of the behaviour.
pub async fn run(store: Arc<dyn ManagedStore>) -> Result<(), Violation> {
    for behaviour in BEHAVIOURS {
        behaviour.check(store.clone()).await?;
    }
    Ok(())
}

const fn behaviour(
    name: &'static str,
    run: fn(Check) -> BoxFuture<'static, Result<(), Violation>>,
) -> Behaviour {
    Behaviour { name, run, alone: false }
}

const fn alone(behaviour: Behaviour) -> Behaviour {
    Behaviour { alone: true, ..behaviour }
}

/// Every behaviour.
pub const BEHAVIOURS: [Behaviour; 25] = [
    behaviour("blob-atomicity", |check| Box::pin(blobs::atomicity(check))),
    behaviour("blob-verification", |check| Box::pin(blobs::verification(check))),
    behaviour("blob-ranges", |check| Box::pin(blobs::ranges(check))),
    behaviour("blob-concurrent-writers", |check| Box::pin(blobs::concurrent_writers(check))),
    behaviour("manifest-bytes", |check| Box::pin(manifests::bytes(check))),
    behaviour("manifest-other-algorithm", |check| Box::pin(manifests::other_algorithm(check))),
    behaviour("tag-moves", |check| Box::pin(manifests::tag_moves(check))),
    behaviour("tag-concurrent-pushes", |check| Box::pin(manifests::concurrent_pushes(check))),
    behaviour("tag-pages", |check| Box::pin(tags::pages(check))),
    behaviour("tag-lists-of-no-tags", |check| Box::pin(tags::none(check))),
    behaviour("delete-tag-alone", |check| Box::pin(deletes::tag(check))),
    behaviour("delete-manifest-with-tags", |check| Box::pin(deletes::manifest(check))),
    behaviour("delete-blob", |check| Box::pin(deletes::blob(check))),
    behaviour("remove-bytes", |check| Box::pin(deletes::bytes(check))),
    behaviour("quarantine", |check| Box::pin(deletes::quarantine(check))),
    behaviour("isolation", |check| Box::pin(isolation::of_repositories(check))),
    behaviour("upload-resumed", |check| Box::pin(uploads::resumed(check))),
    behaviour("upload-exclusive", |check| Box::pin(uploads::exclusive(check))),
    behaviour("upload-wrong-digest", |check| Box::pin(uploads::wrong_digest(check))),
    behaviour("upload-cancelled", |check| Box::pin(uploads::cancelled(check))),
    behaviour("upload-concurrent", |check| Box::pin(uploads::concurrent(check))),
    alone(behaviour("upload-purged", |check| Box::pin(uploads::purged(check)))),
    behaviour("referrers", |check| Box::pin(referrers::listed(check))),
    behaviour("notes", |check| Box::pin(notes::kept(check))),
    behaviour("enumeration", |check| Box::pin(walks::enumeration(check))),
];
