//! Observed state of a CachedImage and its dependencies.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Job, Naming, Outcome, Status,
    backoff::{delay, full_delay},
};

/// Input of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The object's name.
    pub name: String,
    /// `spec.sourceImage`.
    pub source_image: String,
    /// Its normalized reference; `None` if invalid.
    pub image: Option<String>,
    /// Whether the reference has a digest, which never changes.
    pub by_digest: bool,
    /// Whether the object has its canonical name.
    pub naming: Naming,
    /// The object's `metadata.generation`.
    pub generation: Option<i64>,
    /// Whether the object has a deletion timestamp.
    pub deleting: bool,
    /// Our metadata on the object.
    pub metadata: OwnedMetadata,
    /// Whether a refresh is requested.
    pub force_update: bool,
    /// Hash of the annotations that are not the controller's own. A change means that the user wants a verification.
    pub annotations: u64,
    /// `spec.expiresAt`.
    pub expires_at: Option<Timestamp>,
    /// `spec.retain`.
    pub retain: bool,
    /// `status`.
    pub status: Status,
    /// Its Repository object, if it exists.
    pub repository: Option<RepositoryState>,
    /// The pods that use it; `None` if not known yet.
    pub usage: Option<PodUsage>,
    /// Related objects.
    pub siblings: Siblings,
    /// Its running job.
    pub job: Option<Running>,
    /// The result of its last job, if not handled by a plan yet.
    pub outcome: Option<JobResult>,
    /// Its in-memory state.
    pub memory: Memory,
    /// End of the registry's backoff, if backed off.
    pub registry_retry_at: Option<Timestamp>,
    /// End of the cache's backoff, if backed off.
    pub cache_retry_at: Option<Timestamp>,
    /// Intervals and delays.
    pub settings: Settings,
}

/// Intervals and delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long an unused image is kept.
    pub expiry_delay: Duration,
    /// How often the cache is verified.
    pub verify_interval: Duration,
    /// Delay before a running job appears in the status.
    pub show_after: Duration,
}

/// Metadata that the controller owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedMetadata {
    /// Our finalizer.
    pub finalizer: bool,
    /// The label that names the repository.
    pub label: Option<String>,
    /// The UID of the Repository that owns it.
    pub owner: Option<String>,
}

/// State of an image's Repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryState {
    /// Its UID.
    pub uid: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When the image's tag is checked.
    pub refresh: Refresh,
}

/// When a tag is checked upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Only on request.
    Never,
    /// Periodically.
    Every {
        /// First check that may be outstanding.
        from: Timestamp,
        /// Time between checks.
        interval: Duration,
    },
}

/// The pods that use an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodUsage {
    /// Names of some of them.
    pub pods: Vec<String>,
    /// Total number.
    pub count: i64,
}

/// Related objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Siblings {
    /// Whether another object that is not being deleted uses the same tag of the cache.
    pub share_tag: bool,
    /// The label that the object should have.
    pub label: String,
    /// The name of its Repository object.
    pub repository_name: String,
}

/// A job that is running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The job.
    pub job: Job,
    /// Normalized reference of its image.
    pub image: String,
    /// When it was requested.
    pub since: Timestamp,
    /// Whether it has begun; otherwise it is queued.
    pub begun: bool,
    /// Progress of a pull, once its size is known.
    pub transfer: Option<Transfer>,
}

/// Progress of a pull, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfer {
    /// Bytes in the cache so far.
    pub done: u64,
    /// Size of the image.
    pub total: u64,
}

/// A finished job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobResult {
    /// The job.
    pub job: Job,
    /// Normalized reference of its image.
    pub image: String,
    /// Its outcome.
    pub outcome: Outcome,
}

/// In-memory state of an object, lost when the process exits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Normalized reference of the image this is about.
    pub image: Option<String>,
    /// When the cache was last verified.
    pub verified_at: Option<Timestamp>,
    /// Consecutive job failures.
    pub failures: u32,
    /// Time of the last failure.
    pub failed_at: Option<Timestamp>,
    /// Error of the last failure.
    pub problem: Option<String>,
    /// Set if the cache did not keep the image, or lost it. A verification does not reset it.
    pub not_kept: Option<NotKept>,
    /// Hash of the annotations when they were last observed.
    pub annotations: Option<u64>,
    /// Whether the annotations have changed, so that a verification is due.
    pub asked: bool,
    /// Whether the next pull ignores the backoff of the image, once.
    pub ignore_backoff: bool,
    /// Whether a refresh was requested when last observed.
    pub forced: bool,
    /// Whether the event about the running slow pull was emitted.
    pub announced: bool,
    /// Whether upstream had another digest than the cache at the last check.
    pub outdated: bool,
    /// Whether upstream has responded since this process started or the cached digest last changed.
    pub checked: bool,
    /// Since when the list of pods in the status is stale, if it is.
    pub usage_since: Option<Timestamp>,
    /// Consecutive status writes that concerned only pods.
    pub usage_writes: u32,
    /// Time of the last status write.
    pub written_at: Option<Timestamp>,
    /// Whether this is about the removal of the object.
    pub removing: bool,
}

/// Backoff of an image that the cache did not keep, or lost: downloading it again may be in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKept {
    /// Whether the cache is full, as far as it can tell; otherwise it lost the image for an unknown reason.
    pub full: bool,
    /// Consecutive times. The first loss of a cache that cannot tell whether it is full counts as none.
    pub count: u32,
    /// The last time.
    pub at: Timestamp,
}

impl NotKept {
    /// Returns the time from the last loss to the next pull. `salt` identifies the image.
    pub(super) fn delay(&self, salt: &str) -> Duration {
        match (self.full, self.count) {
            (_, 0) => Duration::ZERO,
            (true, count) => full_delay(count, salt),
            (false, count) => delay(count, salt),
        }
    }
}
