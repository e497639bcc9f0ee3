//! Why content could not be had, named by what the caller can do about it.
//!
//! A [`SourceError`] is cheap to clone, because one failed upstream fetch is told to every reader that waited for
//! it. Its Display says what was attempted on what; its `source()` says what happened below.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

/// What the caller can do about a [`SourceError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// The source answers, and has no such repository, tag, manifest or blob: ask another source.
    NotFound,
    /// No credential was accepted: configure one.
    Unauthorized,
    /// The credential was accepted, and does not allow this.
    Denied,
    /// Too many requests: wait (see [`SourceError::retry_after`]).
    RateLimited,
    /// The source cannot be reached, or fails on its side: try later, or another source.
    Unavailable,
    /// The source did not answer in time: try later, or another source.
    TimedOut,
    /// What the source sent is not what was asked for: a wrong digest, a wrong length, not a manifest.
    InvalidContent,
    /// The request itself cannot be answered: a thing that this source does not do.
    Unsupported,
    /// The range asked for lies outside the content.
    RangeNotSatisfiable,
    /// The configuration or a policy forbids to contact this source.
    Forbidden,
    /// The store failed: a full or broken disk.
    Storage,
}

/// Content could not be read, or not be kept.
#[derive(Debug, Clone)]
pub struct SourceError(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: SourceErrorKind,
    attempted: String,
    retry_after: Option<Duration>,
    unreachable: bool,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl SourceError {
    /// An error of `kind`; `attempted` says what was attempted on what, and what came of it.
    pub fn new(kind: SourceErrorKind, attempted: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            attempted: attempted.into(),
            retry_after: None,
            unreachable: false,
            cause: None,
        }))
    }

    /// The same, with the error that caused it.
    pub fn caused_by(
        kind: SourceErrorKind,
        attempted: impl Into<String>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            attempted: attempted.into(),
            retry_after: None,
            unreachable: false,
            cause: Some(cause.into()),
        }))
    }

    /// A [`SourceErrorKind::RateLimited`] error, with the time that the source asked to wait.
    pub fn rate_limited(attempted: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self(Arc::new(Inner {
            kind: SourceErrorKind::RateLimited,
            attempted: attempted.into(),
            retry_after,
            unreachable: false,
            cause: None,
        }))
    }

    /// A [`SourceErrorKind::Storage`] error.
    pub fn storage(attempted: impl Into<String>, cause: io::Error) -> Self {
        Self::caused_by(SourceErrorKind::Storage, attempted, cause)
    }

    /// The same, where nothing at all was heard from the source: see [`SourceError::is_unreachable`]. To be called on
    /// a new error, before it is cloned.
    #[must_use]
    pub fn unreachable(mut self) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.unreachable = true;
        }
        self
    }

    /// The same, with the time that the source wants to be left alone. To be called on a new error, before it is cloned.
    #[must_use]
    pub fn to_be_retried_after(mut self, wait: Duration) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.retry_after = Some(wait);
        }
        self
    }

    /// Whether nothing at all was heard from the source: it is away. One that answers with a failure, its own or that
    /// of whoever it asks in turn, is not.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.0.unreachable
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> SourceErrorKind {
        self.0.kind
    }

    /// Whether the source answered that it does not have the content.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.0.kind == SourceErrorKind::NotFound
    }

    /// How long the source asked to wait before the next request.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The whole chain of causes in one line, for a log or an error body.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.attempted)
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}
