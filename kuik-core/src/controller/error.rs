//! What can go wrong between us and the Kubernetes API.

use std::{error::Error, fmt, time::Duration};

use super::Outcome;

/// A request to the Kubernetes API failed.
#[derive(Debug)]
pub struct ApiError {
    attempted: String,
    kind: ApiErrorKind,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// What a failed request means for who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiErrorKind {
    /// There is no such object.
    NotFound,
    /// There is an object of this name.
    AlreadyExists,
    /// The object was changed by somebody else meanwhile: look at it again.
    Conflict,
    /// We have not the right to do this.
    Forbidden,
    /// The server has too much to do, and asks for this much patience.
    Throttled(Duration),
    /// Everything else: try again.
    Failed,
}

impl ApiError {
    /// The error of a request by which `attempted` ("create the Repository x") was to be done.
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

    /// There was no answer in time.
    pub(crate) fn timed_out(attempted: impl Into<String>) -> Self {
        let cause = Some("the API server does not answer in time".into());
        Self { attempted: attempted.into(), kind: ApiErrorKind::Failed, cause }
    }

    /// What it means.
    #[must_use]
    pub fn kind(&self) -> ApiErrorKind {
        self.kind
    }

    /// How a reconciliation ends that met it.
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
