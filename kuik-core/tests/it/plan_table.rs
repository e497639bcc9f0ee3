//! Table tests of the CachedImage plan.
//!
//! Each row is a situation, as a change of a cached image that two pods use, and the resulting steps as text. The clock
//! is fixed at [`NOW`]; times are seconds before (`-60`) or after (`+60`) it.
#![cfg(feature = "crd")]

use std::time::Duration;

use jiff::Timestamp;
use kuik_core::{
    controller::cached_image::plan::{
        EventKind, Failure, Job, JobResult, Memory, Naming, NotKept, Observed, Outcome, OwnedMetadata,
        PodUsage, Readiness, Refresh, RepositoryState, Running, Settings, Siblings, Status, Step, Transfer,
        plan,
    },
    copy::Room,
    crd::CachedImagePhase::{self, ErrImagePull, Pulling, Ready, Synchronizing, Terminating},
};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 3600;
const IMAGE: &str = "docker.io/library/nginx:1.25";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

/// A cached image that two pods use, ten seconds after the last verification of the cache.
fn usual() -> Observed {
    let mut status = Status::default();
    status.is_cached = Some(true);
    status.phase = Some(Ready);
    status.used_by = Some(used(2));
    status.digest = Some("aaaa".to_owned());
    status.upstream_digest = Some("aaaa".to_owned());
    status.up_to_date = Some(true);
    status.last_sync = Some(at(-600));
    status.last_successful_pull = Some(at(-600));
    status.available_upstream = Some(true);
    status.last_seen_upstream = Some(at(-600));
    status.observed_generation = Some(1);
    status.ready = Some(Readiness {
        is: true,
        reason: "UpToDate".to_owned(),
        message: "cached digest matches upstream as of the last check".to_owned(),
    });
    Observed {
        name: "docker.io-library-nginx-1.25".to_owned(),
        source_image: "nginx:1.25".to_owned(),
        image: Some(IMAGE.to_owned()),
        by_digest: false,
        naming: Naming::Right,
        generation: Some(1),
        deleting: false,
        metadata: OwnedMetadata {
            finalizer: true,
            label: Some("docker.io-library-nginx".to_owned()),
            owner: Some("u1".to_owned()),
        },
        force_update: false,
        annotations: 0,
        expires_at: None,
        retain: false,
        status,
        repository: Some(RepositoryState { uid: "u1".to_owned(), deleting: false, refresh: Refresh::Never }),
        usage: Some(used(2)),
        siblings: Siblings {
            share_tag: false,
            label: "docker.io-library-nginx".to_owned(),
            repository_name: "docker.io-library-nginx".to_owned(),
        },
        job: None,
        outcome: None,
        memory: Memory { image: Some(IMAGE.to_owned()), verified_at: Some(at(-10)), ..Memory::default() },
        registry_retry_at: None,
        cache_retry_at: None,
        settings: Settings {
            expiry_delay: Duration::from_secs(30 * 24 * 3600),
            verify_interval: Duration::from_secs(60),
            show_after: Duration::from_secs(1),
        },
    }
}

/// A CachedImage not reconciled yet.
fn new() -> Observed {
    let mut observed = usual();
    observed.metadata = OwnedMetadata::default();
    observed.status = Status::default();
    observed.memory = Memory::default();
    observed
}

/// An image whose pull failed `failures` times, the last time `ago` seconds ago.
fn failing(failures: u32, ago: i64) -> Observed {
    let mut observed = usual();
    observed.status.is_cached = Some(false);
    observed.status.phase = Some(ErrImagePull);
    observed.status.digest = None;
    observed.status.ready = Some(Readiness {
        is: false,
        reason: "ErrImagePull".to_owned(),
        message: "connection refused".to_owned(),
    });
    observed.memory.failures = failures;
    observed.memory.failed_at = Some(at(-ago));
    observed.memory.problem = Some("connection refused".to_owned());
    observed
}

fn used(count: i64) -> PodUsage {
    PodUsage { pods: (0..count).map(|n| format!("default/web-{n}")).collect(), count }
}

fn running(job: Job, since: i64) -> Option<Running> {
    Some(Running { job, image: IMAGE.to_owned(), since: at(since), begun: true, transfer: None })
}

fn ended(job: Job, outcome: Outcome) -> Option<JobResult> {
    Some(JobResult { job, image: IMAGE.to_owned(), outcome })
}

fn failure(problem: &str) -> Failure {
    Failure { problem: problem.to_owned(), not_found: false, retry_after: None }
}

fn not_found() -> Failure {
    Failure { not_found: true, ..failure("not found") }
}

const PULL: Job = Job::Pull { forced: false };
const FORCED: Job = Job::Pull { forced: true };

fn pulled(digest: &str) -> Outcome {
    Outcome::Pulled { digest: digest.to_owned(), skipped: Vec::new(), size: 0 }
}

fn checked(digest: &str) -> Outcome {
    Outcome::Checked { digest: digest.to_owned() }
}

fn complete(digest: &str) -> Outcome {
    Outcome::Complete { digest: digest.to_owned(), size: 0 }
}

fn incomplete(what: &str, room: Room) -> Outcome {
    Outcome::Incomplete { what: what.to_owned(), room }
}

/// Returns `base` with a change applied.
fn with(base: Observed, change: impl FnOnce(&mut Observed)) -> Observed {
    let mut observed = base;
    change(&mut observed);
    observed
}

fn usually(change: impl FnOnce(&mut Observed)) -> Observed {
    with(usual(), change)
}

/// Returns an image whose update checks are due `seconds` after the last one.
fn refreshed_every(seconds: u64, synced: i64, change: impl FnOnce(&mut Observed)) -> Observed {
    usually(|it| {
        it.repository.as_mut().unwrap().refresh = Refresh::Every {
            from: at(synced + i64::try_from(seconds).unwrap()),
            interval: Duration::from_secs(seconds),
        };
        it.status.last_sync = Some(at(synced));
        change(it);
    })
}

fn deleted(change: impl FnOnce(&mut Observed)) -> Observed {
    usually(|it| {
        it.deleting = true;
        change(it);
    })
}

/// Returns the steps as text; of a status only the changed fields.
fn steps(observed: &Observed) -> String {
    let words = plan(observed, at(0)).into_iter().filter_map(|step| match step {
        Step::Adopt { finalizer, label, owner } => Some(format!(
            "adopt{}{}{}",
            if finalizer { " finalizer" } else { "" },
            label.map_or(String::new(), |label| format!(" label={label}")),
            owner.map_or(String::new(), |owner| format!(" owner={owner}")),
        )),
        Step::CreateRepository { name } => Some(format!("create repository {name}")),
        Step::Recreate { name } => Some(format!("recreate {name}")),
        Step::Untag { image } => Some(format!("untag {image}")),
        Step::DeleteDuplicate => Some("delete duplicate".to_owned()),
        Step::Expire => Some("expire".to_owned()),
        Step::SetExpiry(None) => Some("clear expiry".to_owned()),
        Step::SetExpiry(Some(date)) => Some(format!("expiry +{}d", (date.as_second() - NOW) / DAY)),
        Step::SetStatus(status) => Some(format!("status{}", difference(&observed.status, &status))),
        Step::ClearForceUpdate => Some("clear force".to_owned()),
        Step::RemoveFinalizer => Some("remove finalizer".to_owned()),
        Step::Start(job) => Some(format!("start {}", name(job))),
        Step::Abandon => Some("abandon".to_owned()),
        Step::Remember(_) => None,
        Step::EmitEvent(kind) => Some(match kind {
            EventKind::Caching => "event Caching".to_owned(),
            EventKind::Cached { .. } => "event Cached".to_owned(),
            EventKind::CacheFailed { is_new, .. } => format!("event CacheFailed{}", repeated(is_new)),
            EventKind::CacheFull { is_new, .. } => format!("event CacheFull{}", repeated(is_new)),
            EventKind::CleaningUp => "event CleaningUp".to_owned(),
            EventKind::CleanedUp => "event CleanedUp".to_owned(),
            EventKind::CleanupFailed { is_new, .. } => format!("event CleanupFailed{}", repeated(is_new)),
            other => panic!("{other:?}"),
        }),
        Step::WakeAt(_) => None,
        other => panic!("{other:?}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn name(job: Job) -> &'static str {
    match job {
        Job::Check => "check",
        PULL => "pull",
        FORCED => "forced pull",
        Job::Verify => "verify",
        Job::Remove => "remove",
        other => panic!("{other:?}"),
    }
}

fn repeated(is_new: bool) -> &'static str {
    if is_new { "" } else { " repeated" }
}

fn difference(before: &Status, after: &Status) -> String {
    let mut words = String::new();
    let mut add = |differs: bool, word: String| {
        if differs {
            words.push(' ');
            words.push_str(&word);
        }
    };
    let phase =
        |phase: Option<CachedImagePhase>| phase.map_or("none".to_owned(), |phase| format!("{phase:?}"));
    add(before.phase != after.phase, phase(after.phase));
    add(
        before.is_cached != after.is_cached,
        if after.says_cached() { "cached" } else { "not cached" }.to_owned(),
    );
    add(before.digest != after.digest, format!("digest={}", after.digest.as_deref().unwrap_or("none")));
    let upstream = after.upstream_digest.as_deref().unwrap_or("none");
    add(before.upstream_digest != after.upstream_digest, format!("upstream={upstream}"));
    add(
        before.up_to_date != after.up_to_date,
        if after.up_to_date == Some(true) { "current" } else { "outdated" }.to_owned(),
    );
    add(before.last_sync != after.last_sync, "synced".to_owned());
    add(before.last_successful_pull != after.last_successful_pull, "pulled".to_owned());
    let available = if after.available_upstream == Some(true) { "available" } else { "unavailable" };
    add(before.available_upstream != after.available_upstream, available.to_owned());
    add(before.last_seen_upstream != after.last_seen_upstream, "seen".to_owned());
    let count = after.used_by.as_ref().map_or(0, |used| used.count);
    add(before.used_by != after.used_by, format!("used={count}"));
    let generation = after.observed_generation.unwrap_or_default();
    add(before.observed_generation != after.observed_generation, format!("generation={generation}"));
    add(before.size != after.size, after.size.map_or("no size".to_owned(), |size| format!("size={size}")));
    let progress = after.progress.map(|transfer| format!("{}/{}", transfer.done, transfer.total));
    add(before.progress != after.progress, format!("progress={}", progress.as_deref().unwrap_or("none")));
    let reason = after.ready.as_ref().map_or("", |ready| ready.reason.as_str());
    add(before.ready != after.ready, format!("ready={reason}"));
    words
}

/// Asserts that every situation leads to its steps. Reports all failures together.
fn check(table: &[(&str, Observed, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .map(|(situation, observed, expected)| (situation, steps(observed), expected))
        .filter(|(_, actual, expected)| actual != *expected)
        .map(|(situation, actual, expected)| {
            format!("{situation}:\n    actual {actual:?}\n  expected {expected:?}")
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn pod_changes_are_debounced_and_finally_written() {
    let mut observed = usually(|it| it.usage = Some(used(3)));
    let mut clock = at(0);
    let mut written = Vec::new();
    for count in 4..100 {
        // Memory and status are input of the next plan.
        let mut wake = None;
        for step in plan(&observed, clock) {
            match step {
                Step::Remember(memory) => observed.memory = memory,
                Step::SetStatus(status) => {
                    written.push((clock.as_second() - NOW, status.used_by.clone().unwrap().count));
                    observed.status = *status;
                }
                Step::WakeAt(at) => wake = Some(at),
                _ => {}
            }
        }
        let written_out = observed.status.used_by == observed.usage;
        assert!(written_out || wake.is_some_and(|at| at > clock), "a pending status write has a wake-up");
        // Another pod starts every second, for a while.
        if count < 50 {
            observed.usage = Some(used(count));
        }
        clock = clock.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
    }
    // The pause doubles after each write that concerns only pods.
    assert_eq!(written, [(5, 8), (35, 38), (95, 49)]);
}

#[test]
fn plan_of_a_new_image() {
    const ADOPT: &str = "adopt finalizer label=docker.io-library-nginx owner=u1";
    check(&[
        ("is adopted and pulled; its first status is written later", new(), &format!("{ADOPT}, start pull")),
        (
            "cannot be pulled at once: usedBy is written anyway",
            with(new(), |it| {
                it.cache_retry_at = Some(at(60));
                it.memory.usage_since = Some(at(-5));
            }),
            &format!("{ADOPT}, status used=2 generation=1"),
        ),
        (
            "is pulled and its missing repository is created",
            with(new(), |it| it.repository = None),
            "create repository docker.io-library-nginx, adopt finalizer label=docker.io-library-nginx, \
             start pull",
        ),
        (
            "has an owner not yet in the informer",
            with(new(), |it| {
                it.repository = None;
                it.metadata = OwnedMetadata {
                    finalizer: true,
                    label: Some("docker.io-library-nginx".to_owned()),
                    owner: Some("u1".to_owned()),
                };
            }),
            "start pull",
        ),
        (
            "gets no owner reference to a repository being deleted",
            with(new(), |it| it.repository.as_mut().unwrap().deleting = true),
            "adopt finalizer label=docker.io-library-nginx, start pull",
        ),
        (
            "created manually and unused is pulled and gets an expiry date",
            with(new(), |it| it.usage = Some(used(0))),
            &format!("{ADOPT}, expiry +30d, start pull"),
        ),
        (
            "created manually and retained is pulled and gets no expiry date",
            with(new(), |it| {
                it.usage = Some(used(0));
                it.retain = true;
            }),
            &format!("{ADOPT}, start pull"),
        ),
        (
            "with unknown usage is pulled and gets no expiry date",
            with(new(), |it| it.usage = None),
            &format!("{ADOPT}, start pull"),
        ),
        (
            "is verified while its registry is backed off: it may be cached already",
            with(new(), |it| it.registry_retry_at = Some(at(60))),
            &format!("{ADOPT}, start verify"),
        ),
        ("waits while the cache is backed off", with(new(), |it| it.cache_retry_at = Some(at(60))), ADOPT),
        (
            "is pulled when the registry's backoff ends",
            with(new(), |it| it.registry_retry_at = Some(at(-1))),
            &format!("{ADOPT}, start pull"),
        ),
        (
            "without metadata.generation is pulled",
            with(new(), |it| it.generation = None),
            &format!("{ADOPT}, start pull"),
        ),
    ]);
}

#[test]
fn plan_of_an_image_being_pulled() {
    fn shown(it: &mut Observed) {
        it.status.phase = Some(Pulling);
        it.status.is_cached = Some(false);
        let message = "pulling the image into the cache".to_owned();
        it.status.ready = Some(Readiness { is: false, reason: "Pulling".to_owned(), message });
    }
    let pulling = |since, change: fn(&mut Observed)| {
        with(new(), |it| {
            it.metadata = usual().metadata;
            it.status.used_by = Some(used(2));
            it.status.observed_generation = Some(1);
            it.job = running(PULL, since);
            change(it);
        })
    };
    check(&[
        ("is not reported at once", pulling(0, |_| ()), ""),
        (
            "is reported with an event after a second",
            pulling(-1, |_| ()),
            "status Pulling not cached ready=Pulling, event Caching",
        ),
        (
            "is reported as Synchronizing while queued",
            pulling(-5, |it| it.job.as_mut().unwrap().begun = false),
            "status Synchronizing not cached ready=Pulling",
        ),
        (
            "is reported once",
            pulling(-9, |it| {
                shown(it);
                it.memory.announced = true;
            }),
            "",
        ),
        ("emits the event when it begins, if it was queued", pulling(-9, shown), "event Caching"),
        ("began in the future, by a skewed clock", pulling(9, |_| ()), ""),
        (
            "that failed before stays ErrImagePull during the retry",
            with(failing(3, 60), |it| it.job = running(PULL, -30)),
            "",
        ),
        ("has new pods", pulling(0, |it| it.usage = Some(used(3))), ""),
        (
            "whose object names another image now",
            pulling(-5, |it| it.job.as_mut().unwrap().image = "docker.io/library/nginx:1.24".to_owned()),
            "abandon, start pull",
        ),
        (
            "is edited to another image with another object name",
            pulling(-5, |it| it.naming = Naming::Wrong { right: "docker.io-library-nginx-1.26".to_owned() }),
            "recreate docker.io-library-nginx-1.26, abandon, delete duplicate",
        ),
        (
            "is edited to an invalid reference",
            pulling(-5, |it| {
                it.image = None;
                it.source_image = "NGINX".to_owned();
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "abandon, status ErrImagePull not cached ready=InvalidReference, event CacheFailed",
        ),
        ("is deleted", pulling(-5, |it| it.deleting = true), "abandon, event CleaningUp, start remove"),
        ("is no longer used", pulling(0, |it| it.usage = Some(used(0))), "expiry +30d, status used=0"),
    ]);
}

#[test]
fn plan_after_a_pull() {
    let done = |outcome, change: fn(&mut Observed)| {
        with(new(), |it| {
            it.metadata = usual().metadata;
            it.outcome = ended(PULL, outcome);
            change(it);
        })
    };
    const CACHED: &str = "Ready cached digest=aaaa upstream=aaaa current synced pulled available seen used=2 generation=1 ready=UpToDate";
    check(&[
        ("is ready", done(pulled("aaaa"), |_| ()), &format!("status {CACHED}, event Cached")),
        (
            "is ready despite earlier failures",
            with(failing(5, 60), |it| it.outcome = ended(PULL, pulled("bbbb"))),
            "status Ready cached digest=bbbb upstream=bbbb synced pulled seen ready=UpToDate, event Cached",
        ),
        (
            "failed, but may be in the cache",
            done(Outcome::PullFailed(failure("connection refused")), |_| ()),
            "status ErrImagePull not cached used=2 generation=1 ready=ErrImagePull, event CacheFailed, start verify",
        ),
        (
            "failed with 404",
            done(Outcome::PullFailed(not_found()), |_| ()),
            "status ErrImagePull not cached synced unavailable used=2 generation=1 ready=ErrImagePull, event CacheFailed, start verify",
        ),
        (
            "failed again in the same way: status is unchanged",
            with(failing(3, 60), |it| {
                it.outcome = ended(PULL, Outcome::PullFailed(failure("connection refused")));
            }),
            "event CacheFailed repeated",
        ),
        (
            "failed in another way",
            with(failing(3, 60), |it| it.outcome = ended(PULL, Outcome::PullFailed(failure("timed out")))),
            "status ready=ErrImagePull, event CacheFailed",
        ),
        (
            "is ignored if another image was pulled",
            done(pulled("aaaa"), |it| {
                it.outcome.as_mut().unwrap().image = "docker.io/library/nginx:1.24".to_owned();
            }),
            "start pull",
        ),
    ]);
}

#[test]
fn plan_of_an_image_that_failed_to_pull() {
    check(&[
        ("waits after a failure", failing(1, 1), ""),
        ("is retried after the delay", failing(1, 5), "start pull"),
        ("waits longer after many failures", failing(6, 60), ""),
        (
            "is retried after ten minutes regardless of the number of failures",
            failing(1000, 600),
            "start pull",
        ),
        ("is retried when its source recovers after days", failing(40, 4 * DAY), "start pull"),
        ("whose last failure is in the future, by a skewed clock", failing(3, -3600), "start pull"),
        (
            "is verified while it waits: a proxy may have cached it",
            with(failing(8, 60), |it| it.memory.verified_at = None),
            "start verify",
        ),
        (
            "is found in the cache",
            with(failing(8, 60), |it| it.outcome = ended(Job::Verify, complete("aaaa"))),
            "status Ready cached digest=aaaa ready=NotRefreshed",
        ),
        (
            "is not in the cache: status is unchanged",
            with(failing(8, 60), |it| {
                it.outcome = ended(Job::Verify, incomplete("manifest 1.25", Room::Unknown));
            }),
            "",
        ),
        (
            "is not retried while its registry is backed off",
            with(failing(1, 60), |it| it.registry_retry_at = Some(at(30))),
            "",
        ),
        (
            "is no longer used",
            with(failing(1, 1), |it| it.usage = Some(used(0))),
            "expiry +30d, status used=0",
        ),
        (
            "expires",
            with(failing(1, 60), |it| {
                it.usage = Some(used(0));
                it.expires_at = Some(at(-1));
            }),
            "expire",
        ),
    ]);
}

#[test]
fn plan_of_a_cached_image() {
    check(&[
        ("needs nothing", usual(), ""),
        ("is verified when due", usually(|it| it.memory.verified_at = Some(at(-60))), "start verify"),
        ("is verified after a restart", usually(|it| it.memory = Memory::default()), "start verify"),
        (
            "was verified in the future, by a skewed clock",
            usually(|it| it.memory.verified_at = Some(at(3600))),
            "start verify",
        ),
        (
            "is not verified while the cache is backed off",
            usually(|it| {
                it.memory.verified_at = Some(at(-600));
                it.cache_retry_at = Some(at(60));
            }),
            "",
        ),
        (
            "is verified while its registry is backed off",
            usually(|it| {
                it.memory.verified_at = Some(at(-600));
                it.registry_retry_at = Some(at(60));
            }),
            "start verify",
        ),
        ("is complete", usually(|it| it.outcome = ended(Job::Verify, complete("aaaa"))), ""),
        (
            "is complete, with a digest updated by a proxy",
            usually(|it| it.outcome = ended(Job::Verify, complete("bbbb"))),
            "status digest=bbbb outdated, start check",
        ),
        (
            "is missing: it is pulled again",
            usually(|it| {
                it.outcome = ended(Job::Verify, incomplete("blob sha256:b", Room::Unknown));
            }),
            "status Synchronizing not cached ready=Missing, start pull",
        ),
        (
            "is missing while its registry is backed off: status reports it",
            usually(|it| {
                it.outcome = ended(Job::Verify, incomplete("blob sha256:b", Room::Unknown));
                it.registry_retry_at = Some(at(60));
            }),
            "status Synchronizing not cached ready=Missing",
        ),
        (
            "could not be verified: status is unchanged",
            usually(|it| {
                it.outcome = ended(Job::Verify, Outcome::VerifyFailed(failure("cache unavailable")));
            }),
            "",
        ),
        ("has another pod: the write is debounced", usually(|it| it.usage = Some(used(3))), ""),
        (
            "has had another pod for the debounce interval",
            usually(|it| {
                it.usage = Some(used(3));
                it.memory.usage_since = Some(at(-5));
            }),
            "status used=3",
        ),
        (
            "has had another pod, and status was written recently",
            usually(|it| {
                it.usage = Some(used(3));
                it.memory.usage_since = Some(at(-5));
                it.memory.written_at = Some(at(-29));
            }),
            "",
        ),
        (
            "has another pod, and status was written long enough ago",
            usually(|it| {
                it.usage = Some(used(3));
                it.memory.usage_since = Some(at(-25));
                it.memory.written_at = Some(at(-30));
            }),
            "status used=3",
        ),
        (
            "has different pods, same count",
            usually(|it| {
                it.usage.as_mut().unwrap().pods = vec!["default/b-0".to_owned(), "default/b-1".to_owned()];
                it.memory.usage_since = Some(at(-5));
            }),
            "status used=2",
        ),
        (
            "was edited: observedGeneration is updated",
            usually(|it| it.generation = Some(2)),
            "status generation=2",
        ),
        ("lost its finalizer", usually(|it| it.metadata.finalizer = false), "adopt finalizer"),
        ("lost its label", usually(|it| it.metadata.label = None), "adopt label=docker.io-library-nginx"),
        (
            "has the label of another repository",
            usually(|it| it.metadata.label = Some("quay.io-nginx".to_owned())),
            "adopt label=docker.io-library-nginx",
        ),
        (
            "has an owner that no longer exists",
            usually(|it| it.repository.as_mut().unwrap().uid = "u2".to_owned()),
            "adopt owner=u2",
        ),
        (
            "has lost its repository",
            usually(|it| it.repository = None),
            "create repository docker.io-library-nginx",
        ),
        (
            "was written by kuik 1.14: no generation, condition or digest",
            usually(|it| {
                it.status.observed_generation = None;
                it.status.ready = None;
                it.status.digest = None;
                it.memory = Memory::default();
            }),
            "status generation=1, start verify",
        ),
        (
            "of kuik 1.14 is complete",
            usually(|it| {
                it.status.ready = None;
                it.status.digest = None;
                it.outcome = ended(Job::Verify, complete("aaaa"));
            }),
            "status digest=aaaa ready=UpToDate",
        ),
    ]);
}

#[test]
fn plan_of_expiry() {
    let unused = |date: Option<i64>, change: fn(&mut Observed)| {
        usually(|it| {
            it.usage = Some(used(0));
            it.status.used_by = Some(used(0));
            it.expires_at = date.map(at);
            change(it);
        })
    };
    check(&[
        ("last pod deleted", usually(|it| it.usage = Some(used(0))), "expiry +30d, status used=0"),
        ("unused, date not reached", unused(Some(60), |_| ()), ""),
        ("date passed", unused(Some(-1), |_| ()), "expire"),
        ("date is now", unused(Some(0), |_| ()), "expire"),
        ("date passed long ago", unused(Some(-90 * DAY), |_| ()), "expire"),
        (
            "date passed and a pod uses it: kept",
            unused(Some(-1), |it| it.usage = Some(used(1))),
            "clear expiry, status used=1",
        ),
        (
            "used again before the date",
            unused(Some(60), |it| it.usage = Some(used(1))),
            "clear expiry, status used=1",
        ),
        ("date passed, usage unknown", unused(Some(-1), |it| it.usage = None), ""),
        ("no date, usage unknown", unused(None, |it| it.usage = None), ""),
        ("retained", unused(None, |it| it.retain = true), ""),
        ("retained after the date was set", unused(Some(60), |it| it.retain = true), "clear expiry"),
        ("retained after the date passed", unused(Some(-1), |it| it.retain = true), "clear expiry"),
        (
            "retained, usage unknown",
            unused(Some(-1), |it| {
                it.retain = true;
                it.usage = None;
            }),
            "clear expiry",
        ),
        ("no longer retained", unused(None, |_| ()), "expiry +30d"),
        ("date passed during a pull", unused(Some(-1), |it| it.job = running(PULL, -5)), "abandon, expire"),
        ("date passed and a refresh is requested", unused(Some(-1), |it| it.force_update = true), "expire"),
        ("date set manually, far in the future", unused(Some(4000 * DAY), |_| ()), ""),
        (
            "invalid reference expires too",
            unused(Some(-1), |it| {
                it.image = None;
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "untag docker.io/library/nginx:1.25, expire",
        ),
    ]);
}

#[test]
fn plan_of_update_checks_and_refreshes() {
    const HOUR: u64 = 3600;
    check(&[
        ("is not due", refreshed_every(HOUR, -3599, |_| ()), ""),
        ("is due", refreshed_every(HOUR, -3600, |_| ()), "start check"),
        ("was never done", refreshed_every(HOUR, 0, |it| it.status.last_sync = None), "start check"),
        ("was done in the future, by a skewed clock", refreshed_every(HOUR, 7200, |_| ()), "start check"),
        ("was done just now, within clock skew", refreshed_every(HOUR, 60, |_| ()), ""),
        ("is never due for a digest", refreshed_every(HOUR, -9000, |it| it.by_digest = true), ""),
        (
            "waits while the registry is backed off",
            refreshed_every(HOUR, -3600, |it| it.registry_retry_at = Some(at(60))),
            "",
        ),
        (
            "covers a retained unused image",
            refreshed_every(HOUR, -3600, |it| {
                it.usage = Some(used(0));
                it.status.used_by = Some(used(0));
                it.retain = true;
            }),
            "start check",
        ),
        (
            "is replaced by a pull if the image is not cached",
            refreshed_every(HOUR, -3600, |it| it.status.is_cached = Some(false)),
            "start pull",
        ),
        (
            "runs at once for an image known to be outdated, after a failover",
            usually(|it| it.status.up_to_date = Some(false)),
            "start check",
        ),
        (
            "is not repeated at once after a failed check",
            usually(|it| {
                it.status.up_to_date = Some(false);
                it.memory.checked = true;
            }),
            "",
        ),
        (
            "is not due for an image synced since the repository's checks were due",
            refreshed_every(HOUR, -60, |it| {
                let interval = Duration::from_secs(HOUR);
                it.repository.as_mut().unwrap().refresh = Refresh::Every { from: at(-90), interval };
            }),
            "",
        ),
        (
            "does not wait for other images of its repository",
            refreshed_every(HOUR, -3601, |it| {
                let interval = Duration::from_secs(HOUR);
                it.repository.as_mut().unwrap().refresh = Refresh::Every { from: at(-7200), interval };
            }),
            "start check",
        ),
        (
            "finds the same digest",
            refreshed_every(HOUR, -3600, |it| it.outcome = ended(Job::Check, checked("aaaa"))),
            "status synced seen",
        ),
        (
            "finds a newer digest: pulled at once",
            refreshed_every(HOUR, -3600, |it| it.outcome = ended(Job::Check, checked("bbbb"))),
            "status upstream=bbbb outdated synced seen ready=Outdated, start pull",
        ),
        (
            "has pulled the newer digest",
            refreshed_every(HOUR, -3, |it| {
                it.status.upstream_digest = Some("bbbb".to_owned());
                it.status.up_to_date = Some(false);
                it.memory.outdated = true;
                it.outcome = ended(PULL, pulled("bbbb"));
            }),
            "status digest=bbbb current synced pulled seen, event Cached",
        ),
        (
            "failed to pull the newer digest: the cached image stays",
            refreshed_every(HOUR, -3, |it| {
                it.memory.outdated = true;
                it.outcome = ended(PULL, Outcome::PullFailed(failure("connection refused")));
            }),
            "status ready=NotRefreshed, event CacheFailed",
        ),
        (
            "retries the pull of the newer digest",
            refreshed_every(HOUR, -60, |it| {
                it.memory.outdated = true;
                it.memory.failures = 1;
                it.memory.failed_at = Some(at(-60));
            }),
            "start pull",
        ),
        (
            "failed: the cached image stays",
            refreshed_every(HOUR, -3600, |it| {
                it.outcome = ended(Job::Check, Outcome::CheckFailed(failure("connection refused")));
            }),
            "status ready=NotRefreshed, event CacheFailed",
        ),
        (
            "that failed is retried after the backoff, not after the interval",
            refreshed_every(HOUR, -3660, |it| {
                it.memory.failures = 1;
                it.memory.failed_at = Some(at(-60));
                it.memory.problem = Some("connection refused".to_owned());
            }),
            "start check",
        ),
        (
            "finds the image deleted upstream: the cached image stays",
            refreshed_every(HOUR, -3600, |it| {
                it.outcome = ended(Job::Check, Outcome::CheckFailed(not_found()));
            }),
            "status synced unavailable ready=NotRefreshed, event CacheFailed",
        ),
        (
            "finds the image upstream again",
            refreshed_every(HOUR, -3600, |it| {
                it.status.available_upstream = Some(false);
                it.status.ready.as_mut().unwrap().reason = "NotRefreshed".to_owned();
                it.outcome = ended(Job::Check, checked("aaaa"));
            }),
            "status synced available seen ready=UpToDate",
        ),
        ("is requested", usually(|it| it.force_update = true), "start forced pull"),
        (
            "is requested while the registry is backed off: the annotation stays",
            usually(|it| {
                it.force_update = true;
                it.registry_retry_at = Some(at(60));
            }),
            "",
        ),
        (
            "that was requested is done: the annotation is removed",
            usually(|it| {
                it.force_update = true;
                it.outcome = ended(FORCED, pulled("aaaa"));
            }),
            "status synced pulled seen, event Cached, clear force",
        ),
        (
            "that was requested failed: the annotation stays",
            usually(|it| {
                it.force_update = true;
                it.memory.forced = true;
                it.outcome = ended(FORCED, Outcome::PullFailed(failure("connection refused")));
            }),
            "status ready=NotRefreshed, event CacheFailed",
        ),
        (
            "that was requested is retried",
            usually(|it| {
                it.force_update = true;
                it.memory.failures = 2;
                it.memory.failed_at = Some(at(-60));
            }),
            "start forced pull",
        ),
        (
            "was requested during a pull: that pull does not count",
            usually(|it| {
                it.force_update = true;
                it.outcome = ended(PULL, pulled("aaaa"));
            }),
            "status synced pulled seen, event Cached, start forced pull",
        ),
        (
            "is requested for a digest",
            usually(|it| {
                it.by_digest = true;
                it.force_update = true;
            }),
            "start forced pull",
        ),
    ]);
}

#[test]
fn plan_of_a_deleted_object() {
    check(&[
        ("removes its tag first", deleted(|_| ()), "event CleaningUp, start remove"),
        (
            "has removed its tag",
            deleted(|it| it.outcome = ended(Job::Remove, Outcome::Removed)),
            "remove finalizer, event CleanedUp",
        ),
        ("waits for the removal", deleted(|it| it.job = running(Job::Remove, 0)), ""),
        (
            "reports a slow removal",
            deleted(|it| it.job = running(Job::Remove, -2)),
            "status Terminating not cached ready=Terminating",
        ),
        (
            "failed to remove its tag",
            deleted(|it| {
                it.outcome = ended(Job::Remove, Outcome::RemoveFailed(failure("cache unavailable")));
            }),
            "event CleanupFailed, status Terminating not cached ready=Terminating",
        ),
        (
            "failed to remove its tag again, in the same way",
            deleted(|it| {
                it.status.phase = Some(Terminating);
                it.status.is_cached = Some(false);
                let message = "cache unavailable".to_owned();
                it.status.ready = Some(Readiness { is: false, reason: "Terminating".to_owned(), message });
                it.memory = Memory {
                    removing: true,
                    failures: 3,
                    problem: Some("cache unavailable".to_owned()),
                    ..Memory::default()
                };
                it.outcome = ended(Job::Remove, Outcome::RemoveFailed(failure("cache unavailable")));
            }),
            "event CleanupFailed repeated",
        ),
        (
            "retries after the delay",
            deleted(|it| {
                it.status.phase = Some(Terminating);
                it.status.is_cached = Some(false);
                let message = "cache unavailable".to_owned();
                it.status.ready = Some(Readiness { is: false, reason: "Terminating".to_owned(), message });
                it.memory = Memory {
                    removing: true,
                    failures: 3,
                    failed_at: Some(at(-60)),
                    problem: Some("cache unavailable".to_owned()),
                    ..Memory::default()
                };
            }),
            "start remove",
        ),
        ("waits while the cache is backed off", deleted(|it| it.cache_retry_at = Some(at(60))), ""),
        (
            "whose tag another object uses is released at once",
            deleted(|it| it.siblings.share_tag = true),
            "remove finalizer",
        ),
        (
            "whose tag another object uses since cancels the removal",
            deleted(|it| {
                it.siblings.share_tag = true;
                it.job = running(Job::Remove, -2);
            }),
            "abandon, remove finalizer",
        ),
        (
            "with an invalid reference is released at once",
            deleted(|it| {
                it.image = None;
                it.memory.image = None;
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "remove finalizer",
        ),
        (
            "was edited just before removes both tags",
            deleted(|it| it.memory.image = Some("docker.io/library/nginx:1.24".to_owned())),
            "untag docker.io/library/nginx:1.24, event CleaningUp, start remove",
        ),
        ("has only foreign finalizers", deleted(|it| it.metadata.finalizer = false), ""),
        (
            "was pulled meanwhile: removed anyway",
            deleted(|it| it.outcome = ended(PULL, pulled("aaaa"))),
            "event CleaningUp, start remove",
        ),
        (
            "failed to pull before: removal ignores the backoff",
            deleted(|it| it.memory = Memory { failures: 9, failed_at: Some(at(-1)), ..Memory::default() }),
            "event CleaningUp, start remove",
        ),
        (
            "is used again: removed, to be recreated",
            deleted(|it| it.usage = Some(used(5))),
            "event CleaningUp, start remove",
        ),
        ("is a duplicate", deleted(|it| it.naming = Naming::Duplicate), "event CleaningUp, start remove"),
    ]);
}

#[test]
fn plan_of_names_and_references() {
    check(&[
        (
            "created manually under another name is recreated under the canonical one",
            with(new(), |it| {
                it.name = "nginx".to_owned();
                it.naming = Naming::Wrong { right: "docker.io-library-nginx-1.25".to_owned() };
            }),
            "recreate docker.io-library-nginx-1.25, delete duplicate",
        ),
        (
            "created manually as a duplicate is deleted",
            with(new(), |it| it.naming = Naming::Duplicate),
            "delete duplicate",
        ),
        (
            "invalid reference is reported",
            with(new(), |it| {
                it.image = None;
                it.source_image = "NGINX".to_owned();
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "status ErrImagePull not cached used=2 generation=1 ready=InvalidReference, event CacheFailed",
        ),
        (
            "invalid reference is reported once",
            usually(|it| {
                (it.image, it.memory.image) = (None, None);
                it.source_image = "NGINX".to_owned();
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
                it.status.is_cached = Some(false);
                it.status.phase = Some(ErrImagePull);
                let message = r#""NGINX" cannot be cached: upper case"#.to_owned();
                it.status.ready =
                    Some(Readiness { is: false, reason: "InvalidReference".to_owned(), message });
            }),
            "",
        ),
        (
            "was edited to another image of the same name: status is reset",
            usually(|it| it.memory.image = Some("docker.io/library/nginx:V1".to_owned())),
            "untag docker.io/library/nginx:V1, \
             status none not cached digest=none upstream=none outdated synced pulled unavailable seen ready=, \
             start pull",
        ),
        (
            "was edited to another image with another name",
            usually(|it| {
                it.image = Some("docker.io/library/nginx:1.26".to_owned());
                it.naming = Naming::Wrong { right: "docker.io-library-nginx-1.26".to_owned() };
            }),
            "recreate docker.io-library-nginx-1.26, untag docker.io/library/nginx:1.25, delete duplicate",
        ),
        (
            "was edited to an invalid reference",
            usually(|it| {
                it.image = None;
                it.source_image = "NGINX".to_owned();
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "untag docker.io/library/nginx:1.25, \
             status ErrImagePull not cached ready=InvalidReference, event CacheFailed",
        ),
        (
            "leaves Synchronizing when cached",
            usually(|it| {
                it.status.phase = Some(Synchronizing);
                it.status.is_cached = Some(false);
                it.outcome = ended(PULL, pulled("aaaa"));
            }),
            "status Ready cached synced pulled seen, event Cached",
        ),
    ]);
}

/// An image that the cache did not keep `count` times, the last one `ago` seconds ago.
fn not_kept(count: u32, ago: i64) -> Observed {
    usually(|it| {
        it.status.is_cached = Some(false);
        it.status.phase = Some(ErrImagePull);
        it.status.ready =
            Some(Readiness { is: false, reason: "CacheFull".to_owned(), message: "no room".to_owned() });
        it.memory.not_kept = Some(NotKept { full: true, count, at: at(-ago) });
    })
}

#[test]
fn plan_with_a_full_cache() {
    let full = || Outcome::CacheFull(failure("no room"));
    check(&[
        (
            "did not keep a new image",
            with(new(), |it| {
                it.metadata = usual().metadata;
                it.outcome = ended(PULL, full());
            }),
            "status ErrImagePull not cached used=2 generation=1 ready=CacheFull, event CacheFull, start verify",
        ),
        (
            "did not keep it again: status is unchanged",
            with(not_kept(1, 120), |it| it.outcome = ended(PULL, full())),
            "event CacheFull repeated",
        ),
        (
            "did not keep a newer digest: what it has is verified at once",
            usually(|it| it.outcome = ended(FORCED, full())),
            "status ready=CacheFull, event CacheFull, start verify",
        ),
        (
            "has evicted a cached image",
            usually(|it| it.outcome = ended(Job::Verify, incomplete("blob sha256:b", Room::Full))),
            "status ErrImagePull not cached ready=CacheFull, event CacheFull",
        ),
        (
            "has lost a cached image, and has room",
            usually(|it| it.outcome = ended(Job::Verify, incomplete("blob sha256:b", Room::Free))),
            "status Synchronizing not cached ready=Missing, start pull",
        ),
        (
            "cannot tell whether it is full, and has lost a cached image for the second time",
            usually(|it| {
                it.memory.not_kept = Some(NotKept { full: true, count: 0, at: at(-60) });
                it.outcome = ended(Job::Verify, incomplete("blob sha256:b", Room::Unknown));
            }),
            "status Synchronizing not cached ready=Missing",
        ),
        ("is not asked for the image while it waits", not_kept(1, 60), ""),
        (
            "still has no room",
            with(not_kept(2, 60), |it| {
                it.outcome = ended(Job::Verify, incomplete("blob sha256:b", Room::Full));
            }),
            "",
        ),
        (
            "has room again",
            with(not_kept(5, 60), |it| {
                it.outcome = ended(Job::Verify, incomplete("blob sha256:b", Room::Free));
            }),
            "start pull",
        ),
        ("is tried again after the delay", not_kept(1, 120), "start pull"),
        ("is tried later after more failures", not_kept(4, 600), ""),
        ("is tried after a quarter of an hour at the latest", not_kept(1000, 900), "start pull"),
        (
            "is not asked again by a new process that finds it full",
            with(not_kept(1, 60), |it| {
                it.memory = Memory { verified_at: Some(at(-10)), ..Memory::default() };
            }),
            "",
        ),
    ]);
}

#[test]
fn verification_does_not_reset_the_backoff_of_a_full_cache() {
    let remembered = |observed: &Observed| {
        plan(observed, at(0)).into_iter().find_map(|step| match step {
            Step::Remember(memory) => Some(memory.not_kept),
            _ => None,
        })
    };
    let kept = |ago: i64| {
        with(usual(), |it| {
            it.memory.not_kept = Some(NotKept { full: true, count: 3, at: at(-ago) });
            it.outcome = ended(Job::Verify, complete("aaaa"));
        })
    };
    assert_eq!(remembered(&kept(700)), Some(Some(NotKept { full: true, count: 3, at: at(-700) })));
    assert_eq!(remembered(&kept(960)), Some(None), "it has stayed for twice the delay");
    let lost = with(kept(60), |it| it.outcome = ended(Job::Verify, incomplete("a blob", Room::Full)));
    assert_eq!(remembered(&lost), Some(Some(NotKept { full: true, count: 4, at: at(0) })));
    let pulled = with(not_kept(3, 600), |it| it.outcome = ended(PULL, pulled("aaaa")));
    assert_eq!(remembered(&pulled), Some(Some(NotKept { full: true, count: 3, at: at(-600) })));
}

/// Returns the image after its annotations have changed.
fn annotated(base: Observed) -> Observed {
    with(base, |it| {
        it.memory.annotations = Some(7);
        it.annotations = 8;
    })
}

/// Returns the image after this verification, which an annotation asked for.
fn asked(base: Observed, outcome: Outcome) -> Observed {
    with(base, |it| {
        it.memory.annotations = Some(0);
        it.memory.asked = true;
        it.outcome = ended(Job::Verify, outcome);
    })
}

#[test]
fn plan_after_a_changed_annotation() {
    let force = |base| with(base, |it| it.force_update = true);
    let known_force = |base| with(force(base), |it| it.memory.forced = true);
    check(&[
        ("of a cached image", annotated(usual()), "start verify"),
        ("that is the first one seen", with(usual(), |it| it.annotations = 8), ""),
        ("of an image that failed to pull", annotated(failing(8, 60)), "start verify"),
        ("of an image that the cache did not keep", annotated(not_kept(3, 60)), "start verify"),
        ("while the cache is backed off", with(annotated(usual()), |it| it.cache_retry_at = Some(at(9))), ""),
        (
            "of an image that turns out to be missing",
            asked(failing(8, 60), incomplete("manifest 1.25", Room::Unknown)),
            "start pull",
        ),
        (
            "of an image that is missing, while its registry is backed off",
            with(asked(failing(8, 60), incomplete("manifest 1.25", Room::Unknown)), |it| {
                it.registry_retry_at = Some(at(60));
            }),
            "",
        ),
        (
            "of an image that is missing from a full cache",
            asked(not_kept(3, 60), incomplete("manifest 1.25", Room::Full)),
            "",
        ),
        ("of an image that is complete", asked(usual(), complete("aaaa")), ""),
        (
            "of an image that cannot be verified: once is enough",
            asked(usual(), Outcome::VerifyFailed(failure("denied"))),
            "",
        ),
        ("forces a refresh of a cached image", force(usual()), "start forced pull"),
        ("forces a pull despite failures", force(failing(8, 60)), "start forced pull"),
        ("forces a pull into a cache that was full", force(not_kept(8, 60)), "start forced pull"),
        ("forces it once", known_force(failing(8, 60)), ""),
        ("forces it again", annotated(known_force(failing(8, 60))), "start forced pull"),
        (
            "never ignores the rate limit",
            with(force(failing(8, 60)), |it| it.registry_retry_at = Some(at(60))),
            "",
        ),
    ]);
}

#[test]
fn progress_of_a_pull_is_written_every_five_seconds() {
    let mut observed = with(new(), |it| {
        it.metadata = usual().metadata;
        it.job = running(PULL, 0);
    });
    let mut written = Vec::new();
    for second in 0..30 {
        let done = u64::try_from(second).unwrap() * 10;
        let job = observed.job.as_mut().unwrap();
        // It waits for a pull slot at first. That it no longer does is not worth a write of its own.
        job.begun = second >= 3;
        job.transfer = job.begun.then_some(Transfer { done, total: 1000 });
        for step in plan(&observed, at(second)) {
            match step {
                Step::Remember(memory) => observed.memory = memory,
                Step::SetStatus(status) => {
                    written.push((second, status.phase, status.progress.map(|progress| progress.done)));
                    observed.status = *status;
                }
                Step::WakeAt(wake) => assert!(wake > at(second) && wake <= at(second + 5)),
                _ => {}
            }
        }
    }
    let running = [6, 11, 16, 21, 26].map(|second| (second, Some(Pulling), Some(second as u64 * 10)));
    let expected: Vec<_> = [(1, Some(Synchronizing), None)].into_iter().chain(running).collect();
    assert_eq!(written, expected);
    // The result is written at once.
    observed.job = None;
    let outcome = Outcome::Pulled { digest: "aaaa".to_owned(), skipped: Vec::new(), size: 1000 };
    observed.outcome = ended(PULL, outcome);
    let status = plan(&observed, at(30)).into_iter().find_map(|step| match step {
        Step::SetStatus(status) => Some(status),
        _ => None,
    });
    let status = status.unwrap();
    assert_eq!((status.progress, status.size, status.phase), (None, Some(1000), Some(Ready)));
}
