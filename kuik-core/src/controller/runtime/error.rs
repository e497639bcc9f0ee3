//! Kubernetes API errors.

use std::{error::Error, fmt, time::Duration};

use crate::controller::Outcome;

/// A request to the Kubernetes API failed.
#[derive(Debug)]
pub struct ApiError {
    attempted: String,
    kind: ApiErrorKind,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// Classifies a failed request by what the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiErrorKind {
    /// The object does not exist.
    NotFound,
    /// An object of this name exists already.
    AlreadyExists,
    /// The object was changed concurrently: read it again.
    Conflict,
    /// Not permitted by RBAC.
    Forbidden,
    /// The server throttles requests and asks to wait this long.
    Throttled(Duration),
    /// Anything else: retry.
    Failed,
}

impl ApiError {
    /// Creates the error of a request that `attempted` something ("create the Repository x").
    #[must_use]
    pub fn new(attempted: impl Into<String>, error: kube_client::Error) -> Self {
        let attempted = attempted.into();
        let kube_client::Error::Api(status) = error else {
            return Self { attempted, kind: ApiErrorKind::Failed, cause: Some(error.into()) };
        };
        let kind = match (status.code, status.reason.as_str()) {
            (404, _) => ApiErrorKind::NotFound,
            (409, "AlreadyExists") => ApiErrorKind::AlreadyExists,
            (409, _) => ApiErrorKind::Conflict,
            (401 | 403, _) => ApiErrorKind::Forbidden,
            (429, _) => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                ApiErrorKind::Throttled(Duration::from_secs(seconds.into()))
            }
            _ => ApiErrorKind::Failed,
        };
        let said = if status.message.is_empty() { status.reason.clone() } else { status.message.clone() };
        Self { attempted, kind, cause: Some(said.into()) }
    }

    /// Creates a timeout error.
    pub(crate) fn timed_out(attempted: impl Into<String>) -> Self {
        let cause = Some("API server timed out".into());
        Self { attempted: attempted.into(), kind: ApiErrorKind::Failed, cause }
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ApiErrorKind {
        self.kind
    }

    /// Returns the outcome of a reconcile that failed with this error.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.kind {
            ApiErrorKind::Throttled(patience) => Outcome::FailedUntil(patience),
            _ => Outcome::Failed,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.attempted)
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}
