//! Job outcomes.

use std::time::Duration;

use crate::copy::Room;

/// Outcome of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The registry returned this digest, in hex.
    Checked {
        /// The digest.
        digest: String,
    },
    /// The registry could not be checked.
    CheckFailed(Failure),
    /// The image was put into the cache.
    Pulled {
        /// Its digest, in hex.
        digest: String,
        /// Parts that could not be copied and were skipped.
        skipped: Vec<String>,
        /// Its size in bytes; 0 if unknown.
        size: u64,
    },
    /// The image could not be put into the cache.
    PullFailed(Failure),
    /// The cache has no room for the image, or did not keep it.
    CacheFull(Failure),
    /// The cache has every wanted part of the image.
    Complete {
        /// Its digest there, in hex.
        digest: String,
        /// Its size in bytes; 0 if unknown.
        size: u64,
    },
    /// Content is missing from the cache.
    Incomplete {
        /// Description of the missing content.
        what: String,
        /// Whether the cache has room for the image.
        room: Room,
    },
    /// The cache could not be verified.
    VerifyFailed(Failure),
    /// The tag is no longer in the cache.
    Removed,
    /// The tag could not be removed.
    RemoveFailed(Failure),
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Message: what was attempted, on what, and what failed. Equal for equal problems.
    pub problem: String,
    /// Whether the registry returned 404.
    pub not_found: bool,
    /// The `Retry-After` of the response, if any.
    pub retry_after: Option<Duration>,
}
