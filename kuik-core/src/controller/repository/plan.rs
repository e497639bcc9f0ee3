//! Reconcile plan of a Repository: a pure function of its state, its images and the time.

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::{
    controller::{cached_image::plan::time::SKEW, repository::update_filters::compile},
    crd::{
        CachedImage, CachedImagePhase, PullSecret, REPOSITORY_FINALIZER, Repository, RepositoryPhase,
        RepositoryStatus,
    },
    reference::ImageReference,
};

/// Type of the condition of a Repository.
const READY: &str = "Ready";

/// Maximum time between reconciles: the clock may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Minimum check interval: a wrong unit must not flood the registry.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);

/// Delay before looking again whether due images have been checked.
pub(super) const CHECKS_PAUSE: Duration = Duration::from_secs(15);

/// Input of a plan.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The object.
    pub repository: &'a Repository,
    /// Its CachedImages.
    pub images: &'a [&'a CachedImage],
    /// The pull secrets that pods use for it; `None` if no pod uses it or pods are unknown: then the current ones stay.
    pub pull_secrets: Option<Vec<PullSecret>>,
}

/// Actions to carry out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Change of the finalizer.
    pub finalizer: Option<Finalizer>,
    /// CachedImages to delete.
    pub delete: Vec<String>,
    /// The new status, if it differs.
    pub status: Option<RepositoryStatus>,
    /// The event to emit.
    pub event: Option<Happened>,
    /// When to reconcile again if nothing changes.
    pub again: Option<Duration>,
}

/// Change of the finalizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizer {
    /// Add it.
    Add,
    /// Remove it, which deletes the object.
    Remove,
}

/// Event about a Repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It is being deleted and waits for its images.
    Terminating,
    /// All matching images have been checked.
    UpToDate,
}

/// Returns the plan for a Repository at `now`.
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

/// Returns when the images of a Repository are due for an upstream check: those not checked since then.
///
/// `None` without a valid interval. The first check is one interval after creation. A time in the future was written
/// with a skewed clock and is ignored.
#[must_use]
pub fn checks_due(repository: &Repository, now: Timestamp) -> Option<Timestamp> {
    let last = repository.status.as_ref().and_then(|status| status.last_update.as_ref());
    let ahead = |time: &Time| Duration::try_from(time.0.duration_since(now)).unwrap_or_default();
    let last = last.filter(|last| ahead(last) <= SKEW);
    let last = last.or(repository.metadata.creation_timestamp.as_ref())?;
    last.0.checked_add(interval(repository)?).ok()
}

/// Returns the images subject to checks: cached, referenced by tag, and matching one of the filters or there are none.
/// A list with an invalid filter matches nothing.
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

/// Returns the check interval.
pub(in crate::controller) fn interval(repository: &Repository) -> Option<Duration> {
    let interval = repository.spec.update_interval.as_ref()?.duration().ok()?;
    // Zero means none, and API times are whole seconds.
    (interval > Duration::ZERO).then(|| Duration::from_secs(interval.as_secs()).max(SHORTEST_INTERVAL))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checks {
    /// No checks.
    Off,
    /// Not due before this time, or not all done.
    Waiting(Duration),
    /// Due and all done.
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
        // Nothing to check, so no event.
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

/// Returns the current conditions with ours updated.
fn conditions(
    old: &RepositoryStatus,
    phase: RepositoryPhase,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let (reason, message) = match phase {
        RepositoryPhase::Ready => ("UpToDate", "all images are cached"),
        RepositoryPhase::Pulling => ("Pulling", "pulling images into the cache"),
        RepositoryPhase::ErrImagePull => ("ErrImagePull", "failed to cache at least one image"),
        RepositoryPhase::Terminating => ("Terminating", "waiting for its CachedImages to be deleted"),
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

/// Truncates to whole seconds, the precision of the API.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
