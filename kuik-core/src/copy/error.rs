//! Why an image is not in the cache, named by whose trouble it is.

use crate::content::{SourceError, SourceErrorKind};

/// Why an image could not be put into the cache, looked at or removed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// Its source did not give it, or not all of it.
    #[error("the source of the image failed")]
    Source(#[source] SourceError),
    /// The cache did not take it, or did not answer.
    #[error("the cache failed")]
    Cache(#[source] SourceError),
    /// It has no manifest for any platform that is wanted.
    #[error(transparent)]
    NoPlatform(#[from] NoPlatform),
}

/// An index that has no manifest for any platform that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the image has no manifest for {wanted}: it has {offered}; name one of these platforms, or leave the image alone"
)]
pub struct NoPlatform {
    /// The platforms that are wanted.
    pub wanted: String,
    /// The platforms that there are.
    pub offered: String,
}

impl CopyError {
    /// Whether the source says that it has no such image.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Source(error) if error.is_not_found())
    }

    /// Whether the cache is where the trouble is.
    #[must_use]
    pub fn is_of_cache(&self) -> bool {
        matches!(self, Self::Cache(_))
    }

    /// The error below, where there is one.
    #[must_use]
    pub fn content(&self) -> Option<&SourceError> {
        match self {
            Self::Source(error) | Self::Cache(error) => Some(error),
            Self::NoPlatform(_) => None,
        }
    }

    /// Whether a registry as a whole is in trouble, rather than this image: others that it has would fail too.
    #[must_use]
    pub fn is_of_registry(&self) -> bool {
        use SourceErrorKind::{RateLimited, TimedOut, Unavailable};
        self.content().is_some_and(|error| matches!(error.kind(), RateLimited | TimedOut | Unavailable))
    }

    /// The error with everything below it, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        match self {
            Self::Source(error) => error.chain(),
            Self::Cache(error) => format!("the cache: {}", error.chain()),
            Self::NoPlatform(error) => error.to_string(),
        }
    }
}
