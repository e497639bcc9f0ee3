//! Steps of a plan.

use jiff::Timestamp;

use super::{Memory, Status};

/// One action.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Add our finalizer, the repository label and the owner reference to the object, those that are given, in one
    /// write.
    Adopt {
        /// Whether to add our finalizer.
        finalizer: bool,
        /// The label to set.
        label: Option<String>,
        /// The UID of the owning Repository.
        owner: Option<String>,
    },
    /// Create the missing Repository of this name.
    CreateRepository {
        /// Its name.
        name: String,
    },
    /// Create the object of the same image under another name.
    Recreate {
        /// That name.
        name: String,
    },
    /// Remove the tag of an image that the object named before it was edited, unless another object needs it.
    Untag {
        /// That image.
        image: String,
    },
    /// Delete the object because another one has the same image. Conditional on the observed version.
    DeleteDuplicate,
    /// Delete the expired object. Conditional on the observed version.
    Expire,
    /// Set or clear `spec.expiresAt`.
    SetExpiry(Option<Timestamp>),
    /// Patch `status` to this.
    SetStatus(Box<Status>),
    /// Remove the annotation that requests a refresh.
    ClearForceUpdate,
    /// Remove our finalizer from the object.
    RemoveFinalizer,
    /// Start a job.
    Start(Job),
    /// Cancel the running job.
    Abandon,
    /// Store this memory and discard the handled outcome.
    Remember(Memory),
    /// Emit an event and update metrics.
    EmitEvent(EventKind),
    /// Plan again at this time, unless something changes before.
    WakeAt(Timestamp),
}

/// Background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Job {
    /// Check the digest of the image upstream.
    Check,
    /// Copy the image from upstream into the cache.
    Pull {
        /// Whether this is a requested refresh.
        forced: bool,
    },
    /// Verify manifest and blobs in the cache.
    Verify,
    /// Remove the image's tag from the cache.
    Remove,
}

/// Something that happened, for events and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A slow pull is running.
    Caching,
    /// The image was put into the cache.
    Cached {
        /// Its digest, in hex.
        digest: String,
        /// Parts that could not be copied and were skipped.
        skipped: Vec<String>,
    },
    /// The image could not be put into the cache.
    CacheFailed {
        /// The reason.
        problem: String,
        /// Whether the problem differs from the previous one: a repeated failure is counted but emits no event.
        is_new: bool,
    },
    /// The cache has no room for the image, or did not keep it.
    CacheFull {
        /// The content that did not fit, or was not kept.
        problem: String,
        /// Whether this is the first time: a repeated one is counted but emits no event.
        is_new: bool,
    },
    /// Removal of the tag has started.
    CleaningUp,
    /// The tag was removed.
    CleanedUp,
    /// The tag could not be removed.
    CleanupFailed {
        /// The reason.
        problem: String,
        /// Whether the problem differs from the previous one.
        is_new: bool,
    },
}
