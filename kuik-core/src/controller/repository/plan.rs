//! What is to be done about a Repository: pure, from what is known of it and of its images, and the time.

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::{
    controller::update_filters::compile,
    crd::{
        CachedImage, CachedImagePhase, PullSecret, REPOSITORY_FINALIZER, Repository, RepositoryPhase,
        RepositoryStatus,
    },
    plan::time::SKEW,
    reference::ImageReference,
};

/// The condition that says how a Repository is.
const READY: &str = "Ready";

/// The most that a Repository sleeps: the clock may have been set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The shortest interval in which tags are checked: a mistake of units is not to become a storm.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);

/// How soon it is looked whether images that are due have been checked.
pub(super) const CHECKS_PAUSE: Duration = Duration::from_secs(15);

/// What is known of a Repository.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The object.
    pub repository: &'a Repository,
    /// Its CachedImages.
    pub images: &'a [&'a CachedImage],
    /// The secrets that pods use for it; `None` where no pod uses it, or pods are not known: those that are known stay.
    pub pull_secrets: Option<Vec<PullSecret>>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The finalizer is to be added or removed.
    pub finalizer: Option<Finalizer>,
    /// These CachedImages are to be deleted.
    pub delete: Vec<String>,
    /// What status is to say, where it says something else.
    pub status: Option<RepositoryStatus>,
    /// What has happened, for people.
    pub event: Option<Happened>,
    /// When to look again, though nothing happens.
    pub again: Option<Duration>,
}

/// What becomes of the finalizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizer {
    /// It is added.
    Add,
    /// It is removed, and with it the object.
    Remove,
}

/// What has happened to a Repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It is being deleted, and waits for its images.
    Terminating,
    /// All its images that are to be checked have been.
    UpToDate,
}

/// What is to be done about a Repository `now`.
#[must_use]
pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let Observed { repository, images, pull_secrets } = observed;
    let has_finalizer =
        repository.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == REPOSITORY_FINALIZER);
    let deleted = repository.metadata.deletion_timestamp.is_some();
    if deleted && images.is_empty() {
        return Plan { finalizer: has_finalizer.then_some(Finalizer::Remove), ..Plan::default() };
    }

    let old = repository.status.clone().unwrap_or_default();
    let phase = phase(deleted, images);
    let checks = if deleted { Checks::Off } else { checks(repository, images, now) };
    let last_update = match checks {
        Checks::AllDone => Some(Time(whole_second(now))),
        Checks::Off | Checks::Waiting(_) => old.last_update.clone(),
    };
    let status = RepositoryStatus {
        images: Some(i64::try_from(images.len()).unwrap_or(i64::MAX)),
        phase: Some(phase),
        last_update,
        pull_secrets: match pull_secrets {
            Some(secrets) => Some(secrets.clone()).filter(|secrets| !secrets.is_empty()),
            None => old.pull_secrets.clone(),
        },
        conditions: Some(conditions(&old, phase, repository.metadata.generation, now)),
    };
    let event = match (phase, checks) {
        (RepositoryPhase::Terminating, _) => {
            (old.phase != Some(RepositoryPhase::Terminating)).then_some(Happened::Terminating)
        }
        (_, Checks::AllDone) => Some(Happened::UpToDate),
        _ => None,
    };
    let alive = images.iter().filter(|image| deleted && image.metadata.deletion_timestamp.is_none());
    Plan {
        finalizer: (!deleted && !has_finalizer).then_some(Finalizer::Add),
        delete: alive.filter_map(|image| image.metadata.name.clone()).collect(),
        status: (repository.status.as_ref() != Some(&status)).then_some(status),
        event,
        again: match checks {
            Checks::Waiting(delay) => Some(delay.min(LONGEST_SLEEP)),
            Checks::AllDone => interval(repository).map(|interval| interval.min(LONGEST_SLEEP)),
            Checks::Off => None,
        },
    }
}

/// When the images of a Repository are to be checked against their source: those that were not asked since then.
///
/// `None` where it has no (valid) interval. The first time is an interval after the object was made. A time that is in the
/// future was written by another clock, and is not believed.
#[must_use]
pub fn checks_due(repository: &Repository, now: Timestamp) -> Option<Timestamp> {
    let last = repository.status.as_ref().and_then(|status| status.last_update.as_ref());
    let ahead = |time: &Time| Duration::try_from(time.0.duration_since(now)).unwrap_or_default();
    let last = last.filter(|last| ahead(last) <= SKEW);
    let last = last.or(repository.metadata.creation_timestamp.as_ref())?;
    last.0.checked_add(interval(repository)?).ok()
}

/// Those images that are checked: they are in the cache, their tag may move, and one of the filters is found in them, or
/// there is none. A list with a filter that is no regular expression finds nothing.
fn checked<'a>(repository: &Repository, images: &[&'a CachedImage]) -> Vec<&'a CachedImage> {
    let filters = repository.spec.update_filters.as_deref().unwrap_or_default();
    let Ok(set) = compile(filters) else { return Vec::new() };
    let has_tag = |image: &str| ImageReference::parse(image).is_ok_and(|image| image.digest().is_none());
    let is_checked = |image: &str| has_tag(image) && (filters.is_empty() || set.is_match(image));
    let is_there = |image: &CachedImage| {
        let cached = image.status.as_ref().and_then(|status| status.is_cached);
        cached == Some(true) && image.metadata.deletion_timestamp.is_none()
    };
    images.iter().copied().filter(|image| is_there(image) && is_checked(&image.spec.source_image)).collect()
}

/// How often they are checked.
pub(in crate::controller) fn interval(repository: &Repository) -> Option<Duration> {
    let interval = repository.spec.update_interval.as_ref()?.duration().ok()?;
    // One of nothing is none, and the API's times have no parts of seconds.
    (interval > Duration::ZERO).then(|| Duration::from_secs(interval.as_secs()).max(SHORTEST_INTERVAL))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checks {
    /// There are none.
    Off,
    /// They are not due before then, or not all of them are done.
    Waiting(Duration),
    /// They were due, and all of them are done.
    AllDone,
}

fn checks(repository: &Repository, images: &[&CachedImage], now: Timestamp) -> Checks {
    let Some(due) = checks_due(repository, now) else { return Checks::Off };
    if now < due {
        return Checks::Waiting(Duration::try_from(due.duration_since(now)).unwrap_or(LONGEST_SLEEP));
    }
    let is_done = |image: &CachedImage| {
        let asked = image.status.as_ref().and_then(|status| status.last_sync.as_ref());
        asked.is_some_and(|asked| asked.0 >= due)
    };
    let wanted = checked(repository, images);
    match interval(repository) {
        // There is nothing to check, and nothing to say.
        Some(interval) if wanted.is_empty() => Checks::Waiting(interval),
        _ if wanted.into_iter().all(is_done) => Checks::AllDone,
        _ => Checks::Waiting(CHECKS_PAUSE),
    }
}

fn phase(deleted: bool, images: &[&CachedImage]) -> RepositoryPhase {
    let phase_of = |image: &&CachedImage| image.status.as_ref().and_then(|status| status.phase);
    let is_cached = |image: &&CachedImage| {
        let says = image.status.as_ref().and_then(|status| status.is_cached);
        says == Some(true) || phase_of(image) == Some(CachedImagePhase::Terminating)
    };
    if deleted {
        RepositoryPhase::Terminating
    } else if images.iter().any(|image| phase_of(image) == Some(CachedImagePhase::ErrImagePull)) {
        RepositoryPhase::ErrImagePull
    } else if !images
        .iter()
        .all(|image| is_cached(image) && phase_of(image) != Some(CachedImagePhase::Pulling))
    {
        RepositoryPhase::Pulling
    } else {
        RepositoryPhase::Ready
    }
}

/// The conditions as they are, with ours as it is to be.
fn conditions(
    old: &RepositoryStatus,
    phase: RepositoryPhase,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let (reason, message) = match phase {
        RepositoryPhase::Ready => ("UpToDate", "all images are in the cache"),
        RepositoryPhase::Pulling => ("Pulling", "some images are being put into the cache"),
        RepositoryPhase::ErrImagePull => ("ErrImagePull", "an image could not be put into the cache"),
        RepositoryPhase::Terminating => ("Terminating", "it is being deleted, and waits for its images"),
    };
    let status = if phase == RepositoryPhase::Ready { "True" } else { "False" };
    let conditions = old.conditions.iter().flatten();
    let before = conditions.clone().find(|condition| condition.type_ == READY);
    let since = match before {
        Some(before) if before.status == status => before.last_transition_time.clone(),
        _ => Time(whole_second(now)),
    };
    let ready = Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    let others = conditions.filter(|condition| condition.type_ != READY).cloned();
    others.chain([ready]).collect()
}

/// The API server keeps no parts of seconds: what is written is what is read.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
