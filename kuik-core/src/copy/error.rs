//! Copy errors, by the side that failed.

use crate::content::{SourceError, SourceErrorKind};

/// An image could not be copied, verified or removed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// Reading from the source failed.
    #[error("reading from the image source failed")]
    Source(#[source] SourceError),
    /// The cache rejected a request or did not respond.
    #[error("cache request failed")]
    Cache(#[source] SourceError),
    /// The cache has no room for the image, or did not keep a part that was read through it. Fetching the same content
    /// again is useless until it has room.
    #[error("the cache is full: {what}")]
    CacheFull {
        /// The content that did not fit, or was not kept.
        what: String,
    },
    /// It has no manifest for any wanted platform.
    #[error(transparent)]
    NoPlatform(#[from] NoPlatform),
}

/// An index has no manifest for any wanted platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "image has no manifest for {wanted} (available: {offered}): configure one of these platforms or ignore the image"
)]
pub struct NoPlatform {
    /// The wanted platforms.
    pub wanted: String,
    /// The available platforms.
    pub offered: String,
}

impl CopyError {
    /// Whether the source returned 404.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Source(error) if error.is_not_found())
    }

    /// Whether the cache failed.
    #[must_use]
    pub fn is_of_cache(&self) -> bool {
        matches!(self, Self::Cache(_))
    }

    /// Whether the cache had no room for the image.
    #[must_use]
    pub fn is_cache_full(&self) -> bool {
        matches!(self, Self::CacheFull { .. })
    }

    /// Attributes an error to the cache; `507 Insufficient Storage` means that it is full.
    pub(super) fn of_cache(error: SourceError) -> Self {
        match error.kind() {
            SourceErrorKind::Storage => Self::CacheFull { what: error.chain() },
            _ => Self::Cache(error),
        }
    }

    /// Returns the underlying content error, if any.
    #[must_use]
    pub fn content(&self) -> Option<&SourceError> {
        match self {
            Self::Source(error) | Self::Cache(error) => Some(error),
            Self::CacheFull { .. } | Self::NoPlatform(_) => None,
        }
    }

    /// Whether the registry as a whole is failing, so that other images of it would fail too.
    #[must_use]
    pub fn is_of_registry(&self) -> bool {
        use SourceErrorKind::{RateLimited, TimedOut, Unavailable};
        self.content().is_some_and(|error| matches!(error.kind(), RateLimited | TimedOut | Unavailable))
    }

    /// Returns the error with its source chain, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        match self {
            Self::Source(error) => error.chain(),
            Self::Cache(error) => format!("cache: {}", error.chain()),
            Self::CacheFull { .. } | Self::NoPlatform(_) => self.to_string(),
        }
    }
}
