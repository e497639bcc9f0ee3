//! Errors of content sources and stores, classified by what the caller can do about them.
//!
//! A [`SourceError`] is cheap to clone, because one failed upstream fetch is reported to every waiting reader.
//! `Display` names the operation and its target; `source()` is the underlying cause.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

/// Category of a [`SourceError`], by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// The source responded that it has no such repository, tag, manifest or blob: try another source.
    NotFound,
    /// No credential was accepted: configure one.
    Unauthorized,
    /// The credential was accepted but does not permit this operation.
    Denied,
    /// Too many requests: wait (see [`SourceError::retry_after`]).
    RateLimited,
    /// The source is unreachable, or has a server-side failure: retry later, or try another source.
    Unavailable,
    /// The source did not respond in time: retry later, or try another source.
    TimedOut,
    /// The source sent the wrong content: wrong digest, wrong length, or not a manifest.
    InvalidContent,
    /// The source does not support the request.
    Unsupported,
    /// The requested range lies outside the content.
    RangeNotSatisfiable,
    /// The configuration or a policy forbids contacting this source.
    Forbidden,
    /// The store failed: a full or broken disk.
    Storage,
}

/// Error of reading or storing content.
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
    /// Creates an error of `kind`; `attempted` names the operation, its target and the result.
    pub fn new(kind: SourceErrorKind, attempted: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            attempted: attempted.into(),
            retry_after: None,
            unreachable: false,
            cause: None,
        }))
    }

    /// Creates an error of `kind` with its cause.
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

    /// Creates a [`SourceErrorKind::RateLimited`] error, with the `Retry-After` delay of the source.
    pub fn rate_limited(attempted: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self(Arc::new(Inner {
            kind: SourceErrorKind::RateLimited,
            attempted: attempted.into(),
            retry_after,
            unreachable: false,
            cause: None,
        }))
    }

    /// Creates a [`SourceErrorKind::Storage`] error.
    pub fn storage(attempted: impl Into<String>, cause: io::Error) -> Self {
        Self::caused_by(SourceErrorKind::Storage, attempted, cause)
    }

    /// Marks the error as unreachable: the source sent no response. See [`SourceError::is_unreachable`]. Has no effect
    /// after the error was cloned.
    #[must_use]
    pub fn unreachable(mut self) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.unreachable = true;
        }
        self
    }

    /// Sets the delay before the next request to the source. Has no effect after the error was cloned.
    #[must_use]
    pub fn to_be_retried_after(mut self, wait: Duration) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.retry_after = Some(wait);
        }
        self
    }

    /// Whether the source sent no response at all. A source that responds with an error, its own or that of its
    /// upstream, is reachable.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.0.unreachable
    }

    /// The category of the error.
    #[must_use]
    pub fn kind(&self) -> SourceErrorKind {
        self.0.kind
    }

    /// Whether the source responded that it does not have the content.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.0.kind == SourceErrorKind::NotFound
    }

    /// The delay that the source asked for before the next request.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Formats the whole chain of causes as one line, for a log or an error body.
    #[must_use]
    pub fn chain(&self) -> String {
        crate::error::chain(self)
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
