//! What is seen of a CachedImage, and of what it depends on.

use std::time::Duration;

use jiff::Timestamp;

use super::{Job, Naming, Outcome, Status};

/// Everything that a plan depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The object's name.
    pub name: String,
    /// The image as its object names it.
    pub source_image: String,
    /// The normalised reference of it; `None` where it is no image.
    pub image: Option<String>,
    /// Whether that has a digest, which cannot move.
    pub by_digest: bool,
    /// How the object is named.
    pub naming: Naming,
    /// The object's `metadata.generation`.
    pub generation: Option<i64>,
    /// Whether somebody has deleted the object, and it waits for its finalizers.
    pub deleting: bool,
    /// What of us is on the object.
    pub facts: Facts,
    /// Whether one refresh is asked for.
    pub force_update: bool,
    /// `spec.expiresAt`.
    pub expires_at: Option<Timestamp>,
    /// `spec.retain`.
    pub retain: bool,
    /// `status`.
    pub status: Status,
    /// The object of its repository; `None` where there is none.
    pub repository: Option<RepositoryFacts>,
    /// The pods that use it; `None` where that is not known yet.
    pub usage: Option<Used>,
    /// Other objects.
    pub others: Others,
    /// The job that is running for it.
    pub job: Option<Running>,
    /// What the last job came to, where no plan has dealt with that yet.
    pub outcome: Option<Ended>,
    /// What is remembered of it.
    pub memory: Memory,
    /// When its registry may be asked again, where that is in trouble.
    pub registry_free_at: Option<Timestamp>,
    /// When the cache may be asked again, where that is in trouble.
    pub cache_free_at: Option<Timestamp>,
    /// How images are looked after.
    pub settings: Settings,
}

/// How images are looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long an image stays that no pod uses.
    pub expiry_delay: Duration,
    /// How often the cache is looked into.
    pub verify_interval: Duration,
    /// After how long a job is shown in status.
    pub show_after: Duration,
}

/// What of us is on an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Our finalizer.
    pub finalizer: bool,
    /// The label that names the repository.
    pub label: Option<String>,
    /// The UID of the Repository that owns it.
    pub owner: Option<String>,
}

/// What an image's Repository says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFacts {
    /// Its UID.
    pub uid: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When the image's tag is checked again.
    pub refresh: Refresh,
}

/// When a tag is checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Only where that is asked for.
    Never,
    /// At this time, and then every so often.
    Every {
        /// The first time that is not known to be over.
        from: Timestamp,
        /// How often.
        interval: Duration,
    },
}

/// The pods that use an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Used {
    /// Some of them.
    pub pods: Vec<String>,
    /// How many there are.
    pub count: i64,
}

/// What other objects there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// Whether one that is not being deleted keeps the same tag of the cache.
    pub share_tag: bool,
    /// The label that the object should have.
    pub label: String,
    /// The name of the object of its repository.
    pub repository_name: String,
}

/// A job that is running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// What is done.
    pub job: Job,
    /// The normalised reference of the image that it is done for.
    pub image: String,
    /// When it was asked for.
    pub since: Timestamp,
    /// Whether it has begun; one that has not waits for others to end.
    pub begun: bool,
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What was done.
    pub job: Job,
    /// The normalised reference of the image that it was done for.
    pub image: String,
    /// What it came to.
    pub outcome: Outcome,
}

/// What a process remembers of an object, and loses when it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The normalised reference of the image that this is about.
    pub image: Option<String>,
    /// When the cache was last looked into.
    pub looked_at: Option<Timestamp>,
    /// How often in a row a job has failed.
    pub failures: u32,
    /// When the last one failed.
    pub failed_at: Option<Timestamp>,
    /// What it failed with.
    pub problem: Option<String>,
    /// That people were told of the pull that is running: one that takes its time.
    pub told: bool,
    /// That its registry had another digest than the cache when it was last asked.
    pub moved: bool,
    /// That its registry has answered since this process, or the cache, has had another idea of its digest.
    pub asked: bool,
    /// Since when status does not say which pods use the image, where it does not.
    pub usage_since: Option<Timestamp>,
    /// When status was written last.
    pub written_at: Option<Timestamp>,
    /// That this is about the removal of the object, not about its image.
    pub removing: bool,
}
