//! Tags that a controller refreshes.

use std::fmt;

use kuik_core::reference::{RepositoryName, Tag};

/// Knows which tags a controller refreshes, so that pulls need not revalidate them.
///
/// It is called for each lookup of a tag: it answers from memory, and does not block.
pub trait ManagedTags: fmt::Debug + Send + Sync + 'static {
    /// Whether the tag is managed. `repository` has the name of its registry, such as `docker.io/library/nginx`; its
    /// [encoded form](RepositoryName::encoded) is its path in the store.
    fn is_managed(&self, repository: &RepositoryName, tag: &Tag) -> bool;
}

/// No tag is managed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoManagedTags;

impl ManagedTags for NoManagedTags {
    fn is_managed(&self, _: &RepositoryName, _: &Tag) -> bool {
        false
    }
}
