//! What jobs come to.

use std::time::Duration;

/// What a job came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The registry was asked: it has this digest, in hex.
    Checked {
        /// The digest.
        digest: String,
    },
    /// The registry was asked, and could not say.
    CheckFailed(Failure),
    /// The image is in the cache.
    Pulled {
        /// Its digest, in hex.
        digest: String,
        /// What could not be copied, and it does without.
        without: Vec<String>,
    },
    /// The image could not be put into the cache.
    PullFailed(Failure),
    /// The cache has all of the image that is to be kept.
    Complete {
        /// Its digest there, in hex.
        digest: String,
    },
    /// The cache does not have all of it.
    Incomplete {
        /// What is missing, for people.
        what: String,
    },
    /// The cache could not be looked into.
    VerifyFailed(Failure),
    /// The tag is no longer in the cache.
    Removed,
    /// The tag could not be removed.
    RemoveFailed(Failure),
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people: what was attempted on what, and what happened. The same for the same trouble.
    pub problem: String,
    /// Whether the registry says that it has no such image.
    pub not_found: bool,
    /// When the registry wants to be asked again, where it says so.
    pub retry_after: Option<Duration>,
}
