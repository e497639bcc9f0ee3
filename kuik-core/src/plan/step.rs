//! What can be done about a CachedImage.

use jiff::Timestamp;

use super::{Memory, Status};

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Put our finalizer, the label of its repository and the reference to its owner on the object, those that are
    /// given, in one write.
    Adopt {
        /// Our finalizer is to be added.
        finalizer: bool,
        /// The label is to be this.
        label: Option<String>,
        /// The UID of the Repository that is to own it.
        owner: Option<String>,
    },
    /// Create the Repository of this name, which is missing.
    CreateRepository {
        /// Its name.
        name: String,
    },
    /// Create the object of the same image under another name.
    Recreate {
        /// That name.
        name: String,
    },
    /// Let go of the tag in the cache of an image that the object stood for before it was edited, unless another object
    /// keeps it.
    LetGo {
        /// That image.
        image: String,
    },
    /// Delete the object, whose image another object stands for. It is deleted as it was seen, or not at all.
    GiveWay,
    /// Delete the object, whose time is over. It is deleted as it was seen, or not at all.
    Expire,
    /// Set `spec.expiresAt`, or clear it.
    SetExpiry(Option<Timestamp>),
    /// Make `status` this, by what differs.
    SetStatus(Box<Status>),
    /// Take the mark away that asks for a refresh.
    ClearForce,
    /// Take our finalizer off the object.
    RemoveFinalizer,
    /// Start a job.
    Start(Job),
    /// Abandon the job that is running.
    Abandon,
    /// Remember this from now on, and forget the outcome that was dealt with.
    Remember(Memory),
    /// Tell people and counters.
    Tell(Occasion),
    /// Plan again at this time, if nothing else happens before.
    WakeAt(Timestamp),
}

/// Work that goes on beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Job {
    /// The image's registry is asked what the image is now.
    Check,
    /// The image is put into the cache, as its registry has it now.
    Pull {
        /// Whether that is the refresh that was asked for.
        forced: bool,
    },
    /// The cache is looked into: manifest and blobs.
    Verify,
    /// The image's tag is removed from the cache.
    Remove,
}

/// Something that happened, for events and counters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occasion {
    /// It is being put into the cache.
    Caching,
    /// It was put into the cache.
    Cached {
        /// Its digest, in hex.
        digest: String,
        /// What could not be copied, and it does without.
        without: Vec<String>,
    },
    /// It could not be put into the cache.
    CacheFailed {
        /// Why.
        problem: String,
        /// Whether that was not so before: what fails again in the same way is counted and not told.
        news: bool,
    },
    /// Its tag is being removed from the cache.
    CleaningUp,
    /// Its tag was removed from the cache.
    CleanedUp,
    /// Its tag could not be removed from the cache.
    CleanupFailed {
        /// Why.
        problem: String,
        /// Whether that was not so before.
        news: bool,
    },
}
