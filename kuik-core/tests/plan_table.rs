//! What is done about a CachedImage, situation by situation.
//!
//! Each line is a situation, as what differs from an image that is in the cache and used by two pods, and the steps that
//! it leads to, in words. The clock stands at [`NOW`]; times are seconds before (`-60`) or after (`+60`) it.
#![cfg(feature = "crd")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::time::Duration;

use jiff::Timestamp;
use kuik_core::{
    crd::CachedImagePhase::{self, ErrImagePull, Pulling, Ready, Synchronizing, Terminating},
    plan::{
        Ended, Facts, Failure, Job, Memory, Naming, Observed, Occasion, Others, Outcome, Readiness, Refresh,
        RepositoryFacts, Running, Settings, Status, Step, Used, plan,
    },
};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 3600;
const IMAGE: &str = "docker.io/library/nginx:1.25";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

/// An image that is in the cache and used by two pods, a minute after the cache was looked into.
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
        message: "the cache has it as its registry had it when that was last asked".to_owned(),
    });
    Observed {
        name: "docker.io-library-nginx-1.25".to_owned(),
        source_image: "nginx:1.25".to_owned(),
        image: Some(IMAGE.to_owned()),
        by_digest: false,
        naming: Naming::Right,
        generation: Some(1),
        deleting: false,
        facts: Facts {
            finalizer: true,
            label: Some("docker.io-library-nginx".to_owned()),
            owner: Some("u1".to_owned()),
        },
        force_update: false,
        expires_at: None,
        retain: false,
        status,
        repository: Some(RepositoryFacts { uid: "u1".to_owned(), deleting: false, refresh: Refresh::Never }),
        usage: Some(used(2)),
        others: Others {
            share_tag: false,
            label: "docker.io-library-nginx".to_owned(),
            repository_name: "docker.io-library-nginx".to_owned(),
        },
        job: None,
        outcome: None,
        memory: Memory { image: Some(IMAGE.to_owned()), looked_at: Some(at(-10)), ..Memory::default() },
        registry_free_at: None,
        cache_free_at: None,
        settings: Settings {
            expiry_delay: Duration::from_secs(30 * 24 * 3600),
            verify_interval: Duration::from_secs(60),
            show_after: Duration::from_secs(1),
        },
    }
}

/// One that nobody has done anything about yet.
fn new() -> Observed {
    let mut observed = usual();
    observed.facts = Facts::default();
    observed.status = Status::default();
    observed.memory = Memory::default();
    observed
}

/// One that could not be put into the cache, `failures` times, `ago` seconds ago last.
fn failing(failures: u32, ago: i64) -> Observed {
    let mut observed = usual();
    observed.status.is_cached = Some(false);
    observed.status.phase = Some(ErrImagePull);
    observed.status.digest = None;
    observed.status.ready =
        Some(Readiness { is: false, reason: "ErrImagePull".to_owned(), message: "it is away".to_owned() });
    observed.memory.failures = failures;
    observed.memory.failed_at = Some(at(-ago));
    observed.memory.problem = Some("it is away".to_owned());
    observed
}

fn used(count: i64) -> Used {
    Used { pods: (0..count).map(|n| format!("default/web-{n}")).collect(), count }
}

fn running(job: Job, since: i64) -> Option<Running> {
    Some(Running { job, image: IMAGE.to_owned(), since: at(since), begun: true })
}

fn ended(job: Job, outcome: Outcome) -> Option<Ended> {
    Some(Ended { job, image: IMAGE.to_owned(), outcome })
}

fn failure(problem: &str) -> Failure {
    Failure { problem: problem.to_owned(), not_found: false, retry_after: None }
}

fn not_found() -> Failure {
    Failure { not_found: true, ..failure("there is none") }
}

const PULL: Job = Job::Pull { forced: false };
const FORCED: Job = Job::Pull { forced: true };

fn pulled(digest: &str) -> Outcome {
    Outcome::Pulled { digest: digest.to_owned(), without: Vec::new() }
}

fn checked(digest: &str) -> Outcome {
    Outcome::Checked { digest: digest.to_owned() }
}

fn complete(digest: &str) -> Outcome {
    Outcome::Complete { digest: digest.to_owned() }
}

/// A situation: what is changed of the usual one.
fn with(base: Observed, change: impl FnOnce(&mut Observed)) -> Observed {
    let mut observed = base;
    change(&mut observed);
    observed
}

fn usually(change: impl FnOnce(&mut Observed)) -> Observed {
    with(usual(), change)
}

/// With checks that are due `seconds` after the last one.
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

/// The steps in words: what a step does, and of what it writes only what differs.
fn told(observed: &Observed) -> String {
    let words = plan(observed, at(0)).into_iter().filter_map(|step| match step {
        Step::Adopt { finalizer, label, owner } => Some(format!(
            "adopt{}{}{}",
            if finalizer { " finalizer" } else { "" },
            label.map_or(String::new(), |label| format!(" label={label}")),
            owner.map_or(String::new(), |owner| format!(" owner={owner}")),
        )),
        Step::CreateRepository { name } => Some(format!("create repository {name}")),
        Step::Recreate { name } => Some(format!("recreate {name}")),
        Step::LetGo { image } => Some(format!("let go of {image}")),
        Step::GiveWay => Some("give way".to_owned()),
        Step::Expire => Some("expire".to_owned()),
        Step::SetExpiry(None) => Some("clear expiry".to_owned()),
        Step::SetExpiry(Some(date)) => Some(format!("expiry +{}d", (date.as_second() - NOW) / DAY)),
        Step::SetStatus(status) => Some(format!("status{}", difference(&observed.status, &status))),
        Step::ClearForce => Some("clear force".to_owned()),
        Step::RemoveFinalizer => Some("remove finalizer".to_owned()),
        Step::Start(job) => Some(format!("start {}", name(job))),
        Step::Abandon => Some("abandon".to_owned()),
        Step::Remember(_) => None,
        Step::Tell(occasion) => Some(match occasion {
            Occasion::Caching => "tell caching".to_owned(),
            Occasion::Cached { .. } => "tell cached".to_owned(),
            Occasion::CacheFailed { news, .. } => format!("tell failed{}", if news { "" } else { " again" }),
            Occasion::CleaningUp => "tell cleaning".to_owned(),
            Occasion::CleanedUp => "tell cleaned".to_owned(),
            Occasion::CleanupFailed { news, .. } => {
                format!("tell not cleaned{}", if news { "" } else { " again" })
            }
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

fn difference(before: &Status, after: &Status) -> String {
    let mut words = String::new();
    let mut say = |differs: bool, word: String| {
        if differs {
            words.push(' ');
            words.push_str(&word);
        }
    };
    let phase =
        |phase: Option<CachedImagePhase>| phase.map_or("none".to_owned(), |phase| format!("{phase:?}"));
    say(before.phase != after.phase, phase(after.phase));
    say(
        before.is_cached != after.is_cached,
        if after.says_cached() { "cached" } else { "not cached" }.to_owned(),
    );
    say(before.digest != after.digest, format!("digest={}", after.digest.as_deref().unwrap_or("none")));
    let upstream = after.upstream_digest.as_deref().unwrap_or("none");
    say(before.upstream_digest != after.upstream_digest, format!("upstream={upstream}"));
    say(
        before.up_to_date != after.up_to_date,
        if after.up_to_date == Some(true) { "current" } else { "outdated" }.to_owned(),
    );
    say(before.last_sync != after.last_sync, "synced".to_owned());
    say(before.last_successful_pull != after.last_successful_pull, "pulled".to_owned());
    let available = if after.available_upstream == Some(true) { "available" } else { "unavailable" };
    say(before.available_upstream != after.available_upstream, available.to_owned());
    say(before.last_seen_upstream != after.last_seen_upstream, "seen".to_owned());
    let count = after.used_by.as_ref().map_or(0, |used| used.count);
    say(before.used_by != after.used_by, format!("used={count}"));
    let generation = after.observed_generation.unwrap_or_default();
    say(before.observed_generation != after.observed_generation, format!("generation={generation}"));
    let reason = after.ready.as_ref().map_or("", |ready| ready.reason.as_str());
    say(before.ready != after.ready, format!("ready={reason}"));
    words
}

/// Whether every situation leads to its steps; all that do not are told at once.
fn check(table: &[(&str, Observed, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .map(|(situation, observed, expected)| (situation, told(observed), expected))
        .filter(|(_, told, expected)| told != *expected)
        .map(|(situation, told, expected)| format!("{situation}:\n   told {told:?}\n  not   {expected:?}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn pods_are_gathered_and_in_the_end_status_says_them() {
    let mut observed = usually(|it| it.usage = Some(used(3)));
    let mut clock = at(0);
    let mut written = Vec::new();
    for count in 4..100 {
        // What is remembered and written is seen the next time.
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
        let said = observed.status.used_by == observed.usage;
        assert!(said || wake.is_some_and(|at| at > clock), "it is woken for what it has not said");
        // Another pod comes every second, for a while.
        if count < 50 {
            observed.usage = Some(used(count));
        }
        clock = clock.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
    }
    assert_eq!(written, [(5, 8), (35, 38), (65, 49)]);
}

#[test]
fn a_new_image() {
    const ADOPT: &str = "adopt finalizer label=docker.io-library-nginx owner=u1";
    check(&[
        (
            "is adopted and pulled; what is known then is its first status",
            new(),
            &format!("{ADOPT}, start pull"),
        ),
        (
            "cannot be pulled at once: it says who uses it all the same",
            with(new(), |it| {
                it.cache_free_at = Some(at(60));
                it.memory.usage_since = Some(at(-5));
            }),
            &format!("{ADOPT}, status used=2 generation=1"),
        ),
        (
            "is pulled though its repository is missing, which is created",
            with(new(), |it| it.repository = None),
            "create repository docker.io-library-nginx, adopt finalizer label=docker.io-library-nginx, \
             start pull",
        ),
        (
            "was made with its repository, which is not seen yet",
            with(new(), |it| {
                it.repository = None;
                it.facts = Facts {
                    finalizer: true,
                    label: Some("docker.io-library-nginx".to_owned()),
                    owner: Some("u1".to_owned()),
                };
            }),
            "start pull",
        ),
        (
            "has no owner that is being deleted",
            with(new(), |it| it.repository.as_mut().unwrap().deleting = true),
            "adopt finalizer label=docker.io-library-nginx, start pull",
        ),
        (
            "made by hand, with no pod, is pulled and gets a date",
            with(new(), |it| it.usage = Some(used(0))),
            &format!("{ADOPT}, expiry +30d, start pull"),
        ),
        (
            "made by hand and retained is pulled and gets no date",
            with(new(), |it| {
                it.usage = Some(used(0));
                it.retain = true;
            }),
            &format!("{ADOPT}, start pull"),
        ),
        (
            "of which the pods are not known yet is pulled and gets no date",
            with(new(), |it| it.usage = None),
            &format!("{ADOPT}, start pull"),
        ),
        (
            "waits for a registry that is in trouble, and may be in the cache already",
            with(new(), |it| it.registry_free_at = Some(at(60))),
            &format!("{ADOPT}, start verify"),
        ),
        ("waits for a cache that is in trouble", with(new(), |it| it.cache_free_at = Some(at(60))), ADOPT),
        (
            "waits no longer once the registry is free",
            with(new(), |it| it.registry_free_at = Some(at(-1))),
            &format!("{ADOPT}, start pull"),
        ),
        (
            "on an API server that counts no generations",
            with(new(), |it| it.generation = None),
            &format!("{ADOPT}, start pull"),
        ),
    ]);
}

#[test]
fn an_image_that_is_being_pulled() {
    fn shown(it: &mut Observed) {
        it.status.phase = Some(Pulling);
        it.status.is_cached = Some(false);
        let message = "it is being put into the cache".to_owned();
        it.status.ready = Some(Readiness { is: false, reason: "Pulling".to_owned(), message });
    }
    let pulling = |since, change: fn(&mut Observed)| {
        with(new(), |it| {
            it.facts = usual().facts;
            it.status.used_by = Some(used(2));
            it.status.observed_generation = Some(1);
            it.job = running(PULL, since);
            change(it);
        })
    };
    check(&[
        ("is not shown at once", pulling(0, |_| ()), ""),
        (
            "is shown and told after a second",
            pulling(-1, |_| ()),
            "status Pulling not cached ready=Pulling, tell caching",
        ),
        (
            "is shown as waiting where others are pulled first",
            pulling(-5, |it| it.job.as_mut().unwrap().begun = false),
            "status Synchronizing not cached ready=Pulling",
        ),
        (
            "is shown and told once",
            pulling(-9, |it| {
                shown(it);
                it.memory.told = true;
            }),
            "",
        ),
        ("is told when it begins, where it had to wait", pulling(-9, shown), "tell caching"),
        ("began in the future, by another clock", pulling(9, |_| ()), ""),
        (
            "that failed before stays a failure while it is tried",
            with(failing(3, 60), |it| it.job = running(PULL, -30)),
            "",
        ),
        ("has new pods meanwhile", pulling(0, |it| it.usage = Some(used(3))), ""),
        (
            "whose object stands for another image now",
            pulling(-5, |it| it.job.as_mut().unwrap().image = "docker.io/library/nginx:1.24".to_owned()),
            "abandon, start pull",
        ),
        (
            "is edited to another image, which has another name",
            pulling(-5, |it| it.naming = Naming::Wrong { right: "docker.io-library-nginx-1.26".to_owned() }),
            "recreate docker.io-library-nginx-1.26, abandon, give way",
        ),
        (
            "is edited to what is no image",
            pulling(-5, |it| {
                it.image = None;
                it.source_image = "NGINX".to_owned();
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "abandon, status ErrImagePull not cached ready=InvalidReference, tell failed",
        ),
        ("is deleted", pulling(-5, |it| it.deleting = true), "abandon, tell cleaning, start remove"),
        ("is no longer used", pulling(0, |it| it.usage = Some(used(0))), "expiry +30d, status used=0"),
    ]);
}

#[test]
fn an_image_that_was_pulled() {
    let done = |outcome, change: fn(&mut Observed)| {
        with(new(), |it| {
            it.facts = usual().facts;
            it.outcome = ended(PULL, outcome);
            change(it);
        })
    };
    const CACHED: &str = "Ready cached digest=aaaa upstream=aaaa current synced pulled available seen used=2 generation=1 ready=UpToDate";
    check(&[
        ("is ready", done(pulled("aaaa"), |_| ()), &format!("status {CACHED}, tell cached")),
        (
            "is ready whatever failed before",
            with(failing(5, 60), |it| it.outcome = ended(PULL, pulled("bbbb"))),
            "status Ready cached digest=bbbb upstream=bbbb synced pulled seen ready=UpToDate, tell cached",
        ),
        (
            "failed, and may be in the cache all the same",
            done(Outcome::PullFailed(failure("it is away")), |_| ()),
            "status ErrImagePull not cached used=2 generation=1 ready=ErrImagePull, tell failed, start verify",
        ),
        (
            "failed, because there is none",
            done(Outcome::PullFailed(not_found()), |_| ()),
            "status ErrImagePull not cached synced unavailable used=2 generation=1 ready=ErrImagePull, tell failed, start verify",
        ),
        (
            "failed again in the same way: nothing is written",
            with(failing(3, 60), |it| it.outcome = ended(PULL, Outcome::PullFailed(failure("it is away")))),
            "tell failed again",
        ),
        (
            "failed in another way",
            with(failing(3, 60), |it| it.outcome = ended(PULL, Outcome::PullFailed(failure("it is slow")))),
            "status ready=ErrImagePull, tell failed",
        ),
        (
            "is not believed where it was another image that was pulled",
            done(pulled("aaaa"), |it| {
                it.outcome.as_mut().unwrap().image = "docker.io/library/nginx:1.24".to_owned();
            }),
            "start pull",
        ),
    ]);
}

#[test]
fn an_image_that_could_not_be_pulled() {
    check(&[
        ("waits after a failure", failing(1, 1), ""),
        ("is tried again after the wait", failing(1, 5), "start pull"),
        ("waits longer after many", failing(6, 60), ""),
        ("is tried again after ten minutes, however often it failed", failing(1000, 600), "start pull"),
        ("is tried again when its source returns after days", failing(40, 4 * DAY), "start pull"),
        ("whose last failure lies in the future, by another clock", failing(3, -3600), "start pull"),
        (
            "is looked for in the cache while it waits: others may have put it there",
            with(failing(8, 60), |it| it.memory.looked_at = None),
            "start verify",
        ),
        (
            "is found in the cache",
            with(failing(8, 60), |it| it.outcome = ended(Job::Verify, complete("aaaa"))),
            "status Ready cached digest=aaaa ready=NotRefreshed",
        ),
        (
            "is not found there: nothing is new",
            with(failing(8, 60), |it| {
                it.outcome = ended(Job::Verify, Outcome::Incomplete { what: "manifest 1.25".to_owned() });
            }),
            "",
        ),
        (
            "is not tried where its registry is in trouble",
            with(failing(1, 60), |it| it.registry_free_at = Some(at(30))),
            "",
        ),
        (
            "is no longer used",
            with(failing(1, 1), |it| it.usage = Some(used(0))),
            "expiry +30d, status used=0",
        ),
        (
            "expires all the same",
            with(failing(1, 60), |it| {
                it.usage = Some(used(0));
                it.expires_at = Some(at(-1));
            }),
            "expire",
        ),
    ]);
}

#[test]
fn an_image_that_is_cached() {
    check(&[
        ("needs nothing", usual(), ""),
        ("is looked for when that is due", usually(|it| it.memory.looked_at = Some(at(-60))), "start verify"),
        ("is looked for after a start", usually(|it| it.memory = Memory::default()), "start verify"),
        (
            "was looked for in the future, by another clock",
            usually(|it| it.memory.looked_at = Some(at(3600))),
            "start verify",
        ),
        (
            "is not looked for where the cache is in trouble",
            usually(|it| {
                it.memory.looked_at = Some(at(-600));
                it.cache_free_at = Some(at(60));
            }),
            "",
        ),
        (
            "is looked for though its registry is in trouble",
            usually(|it| {
                it.memory.looked_at = Some(at(-600));
                it.registry_free_at = Some(at(60));
            }),
            "start verify",
        ),
        ("is there", usually(|it| it.outcome = ended(Job::Verify, complete("aaaa"))), ""),
        (
            "is there, and was moved by whoever pulled through the cache",
            usually(|it| it.outcome = ended(Job::Verify, complete("bbbb"))),
            "status digest=bbbb outdated, start check",
        ),
        (
            "is gone: status says so, and it is put there again",
            usually(|it| {
                it.outcome = ended(Job::Verify, Outcome::Incomplete { what: "blob sha256:b".to_owned() });
            }),
            "status Synchronizing not cached ready=Missing, start pull",
        ),
        (
            "is gone, and its registry is in trouble: status says so all the same",
            usually(|it| {
                it.outcome = ended(Job::Verify, Outcome::Incomplete { what: "blob sha256:b".to_owned() });
                it.registry_free_at = Some(at(60));
            }),
            "status Synchronizing not cached ready=Missing",
        ),
        (
            "could not be looked for: nothing is known to have changed",
            usually(|it| {
                it.outcome = ended(Job::Verify, Outcome::VerifyFailed(failure("the cache is away")));
            }),
            "",
        ),
        ("has another pod, and soon perhaps a third", usually(|it| it.usage = Some(used(3))), ""),
        (
            "has had another pod for some seconds",
            usually(|it| {
                it.usage = Some(used(3));
                it.memory.usage_since = Some(at(-5));
            }),
            "status used=3",
        ),
        (
            "has had another pod for some seconds, and its pods were written a moment ago",
            usually(|it| {
                it.usage = Some(used(3));
                it.memory.usage_since = Some(at(-5));
                it.memory.written_at = Some(at(-29));
            }),
            "",
        ),
        (
            "has another pod, and its pods were written a while ago",
            usually(|it| {
                it.usage = Some(used(3));
                it.memory.usage_since = Some(at(-25));
                it.memory.written_at = Some(at(-30));
            }),
            "status used=3",
        ),
        (
            "has other pods, as many as before",
            usually(|it| {
                it.usage.as_mut().unwrap().pods = vec!["default/b-0".to_owned(), "default/b-1".to_owned()];
                it.memory.usage_since = Some(at(-5));
            }),
            "status used=2",
        ),
        (
            "was edited: its status speaks of the new generation",
            usually(|it| it.generation = Some(2)),
            "status generation=2",
        ),
        ("lost its finalizer", usually(|it| it.facts.finalizer = false), "adopt finalizer"),
        ("lost its label", usually(|it| it.facts.label = None), "adopt label=docker.io-library-nginx"),
        (
            "has the label of another repository",
            usually(|it| it.facts.label = Some("quay.io-nginx".to_owned())),
            "adopt label=docker.io-library-nginx",
        ),
        (
            "has an owner that is no more",
            usually(|it| it.repository.as_mut().unwrap().uid = "u2".to_owned()),
            "adopt owner=u2",
        ),
        (
            "has no repository any more",
            usually(|it| it.repository = None),
            "create repository docker.io-library-nginx",
        ),
        (
            "was written by kuik 1.14: no generation, no condition, no digest",
            usually(|it| {
                it.status.observed_generation = None;
                it.status.ready = None;
                it.status.digest = None;
                it.memory = Memory::default();
            }),
            "status generation=1, start verify",
        ),
        (
            "of kuik 1.14 is there",
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
fn expiry() {
    let unused = |date: Option<i64>, change: fn(&mut Observed)| {
        usually(|it| {
            it.usage = Some(used(0));
            it.status.used_by = Some(used(0));
            it.expires_at = date.map(at);
            change(it);
        })
    };
    check(&[
        ("the last pod is gone", usually(|it| it.usage = Some(used(0))), "expiry +30d, status used=0"),
        ("nobody has used it for a while", unused(Some(60), |_| ()), ""),
        ("its time is over", unused(Some(-1), |_| ()), "expire"),
        ("its time is over this very moment", unused(Some(0), |_| ()), "expire"),
        ("its time was over long ago, while nobody looked", unused(Some(-90 * DAY), |_| ()), "expire"),
        (
            "its time is over and a pod uses it: it is kept",
            unused(Some(-1), |it| it.usage = Some(used(1))),
            "clear expiry, status used=1",
        ),
        (
            "a pod uses it again before",
            unused(Some(60), |it| it.usage = Some(used(1))),
            "clear expiry, status used=1",
        ),
        ("its time is over and nobody knows the pods yet", unused(Some(-1), |it| it.usage = None), ""),
        ("it has no date and nobody knows the pods yet", unused(None, |it| it.usage = None), ""),
        ("it is retained", unused(None, |it| it.retain = true), ""),
        ("it is retained after its date was set", unused(Some(60), |it| it.retain = true), "clear expiry"),
        ("it is retained after its date", unused(Some(-1), |it| it.retain = true), "clear expiry"),
        (
            "it is retained, and nobody knows the pods yet",
            unused(Some(-1), |it| {
                it.retain = true;
                it.usage = None;
            }),
            "clear expiry",
        ),
        ("it is no longer retained", unused(None, |_| ()), "expiry +30d"),
        (
            "its time is over while it is being pulled",
            unused(Some(-1), |it| it.job = running(PULL, -5)),
            "abandon, expire",
        ),
        (
            "its time is over and a refresh is asked for",
            unused(Some(-1), |it| it.force_update = true),
            "expire",
        ),
        ("a date is far in the future, by hand", unused(Some(4000 * DAY), |_| ()), ""),
        (
            "what is no image expires too",
            unused(Some(-1), |it| {
                it.image = None;
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "let go of docker.io/library/nginx:1.25, expire",
        ),
    ]);
}

#[test]
fn refreshes() {
    const HOUR: u64 = 3600;
    check(&[
        ("is not due", refreshed_every(HOUR, -3599, |_| ()), ""),
        ("is due", refreshed_every(HOUR, -3600, |_| ()), "start check"),
        ("was never done", refreshed_every(HOUR, 0, |it| it.status.last_sync = None), "start check"),
        ("was done in the future, by another clock", refreshed_every(HOUR, 7200, |_| ()), "start check"),
        ("was done just now, by a clock that is a little ahead", refreshed_every(HOUR, 60, |_| ()), ""),
        ("is not due for a digest, ever", refreshed_every(HOUR, -9000, |it| it.by_digest = true), ""),
        (
            "waits for a registry that is in trouble",
            refreshed_every(HOUR, -3600, |it| it.registry_free_at = Some(at(60))),
            "",
        ),
        (
            "is made of an image that is retained and not used",
            refreshed_every(HOUR, -3600, |it| {
                it.usage = Some(used(0));
                it.status.used_by = Some(used(0));
                it.retain = true;
            }),
            "start check",
        ),
        (
            "waits where the image is not in the cache: it is pulled",
            refreshed_every(HOUR, -3600, |it| it.status.is_cached = Some(false)),
            "start pull",
        ),
        (
            "is made at once of what is known to be out of date: whoever was about to pull it is gone",
            usually(|it| it.status.up_to_date = Some(false)),
            "start check",
        ),
        (
            "is not made again at once where that was asked, and not had",
            usually(|it| {
                it.status.up_to_date = Some(false);
                it.memory.asked = true;
            }),
            "",
        ),
        (
            "is not made of what is up to date since its repository's checks were due",
            refreshed_every(HOUR, -60, |it| {
                let interval = Duration::from_secs(HOUR);
                it.repository.as_mut().unwrap().refresh = Refresh::Every { from: at(-90), interval };
            }),
            "",
        ),
        (
            "does not wait for the other images of its repository",
            refreshed_every(HOUR, -3601, |it| {
                let interval = Duration::from_secs(HOUR);
                it.repository.as_mut().unwrap().refresh = Refresh::Every { from: at(-7200), interval };
            }),
            "start check",
        ),
        (
            "finds nothing new",
            refreshed_every(HOUR, -3600, |it| it.outcome = ended(Job::Check, checked("aaaa"))),
            "status synced seen",
        ),
        (
            "finds that the tag has moved: it is pulled at once",
            refreshed_every(HOUR, -3600, |it| it.outcome = ended(Job::Check, checked("bbbb"))),
            "status upstream=bbbb outdated synced seen ready=Outdated, start pull",
        ),
        (
            "has pulled what is new",
            refreshed_every(HOUR, -3, |it| {
                it.status.upstream_digest = Some("bbbb".to_owned());
                it.status.up_to_date = Some(false);
                it.memory.moved = true;
                it.outcome = ended(PULL, pulled("bbbb"));
            }),
            "status digest=bbbb current synced pulled seen, tell cached",
        ),
        (
            "could not pull what is new: the image stays, and it is tried again",
            refreshed_every(HOUR, -3, |it| {
                it.memory.moved = true;
                it.outcome = ended(PULL, Outcome::PullFailed(failure("it is away")));
            }),
            "status ready=NotRefreshed, tell failed",
        ),
        (
            "is tried again after it could not pull what is new",
            refreshed_every(HOUR, -60, |it| {
                it.memory.moved = true;
                it.memory.failures = 1;
                it.memory.failed_at = Some(at(-60));
            }),
            "start pull",
        ),
        (
            "could not ask: the image stays",
            refreshed_every(HOUR, -3600, |it| {
                it.outcome = ended(Job::Check, Outcome::CheckFailed(failure("it is away")));
            }),
            "status ready=NotRefreshed, tell failed",
        ),
        (
            "that could not ask is tried again soon, not after the interval",
            refreshed_every(HOUR, -3660, |it| {
                it.memory.failures = 1;
                it.memory.failed_at = Some(at(-60));
                it.memory.problem = Some("it is away".to_owned());
            }),
            "start check",
        ),
        (
            "finds the image deleted upstream: what the cache has stays",
            refreshed_every(HOUR, -3600, |it| {
                it.outcome = ended(Job::Check, Outcome::CheckFailed(not_found()));
            }),
            "status synced unavailable ready=NotRefreshed, tell failed",
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
        ("is asked for", usually(|it| it.force_update = true), "start forced pull"),
        (
            "is asked for while the registry is in trouble: the mark stays",
            usually(|it| {
                it.force_update = true;
                it.registry_free_at = Some(at(60));
            }),
            "",
        ),
        (
            "that was asked for is had: only now the mark goes",
            usually(|it| {
                it.force_update = true;
                it.outcome = ended(FORCED, pulled("aaaa"));
            }),
            "status synced pulled seen, tell cached, clear force",
        ),
        (
            "that was asked for failed: the mark stays",
            usually(|it| {
                it.force_update = true;
                it.outcome = ended(FORCED, Outcome::PullFailed(failure("it is away")));
            }),
            "status ready=NotRefreshed, tell failed",
        ),
        (
            "that was asked for is tried again",
            usually(|it| {
                it.force_update = true;
                it.memory.failures = 2;
                it.memory.failed_at = Some(at(-60));
            }),
            "start forced pull",
        ),
        (
            "was asked for after a pull had begun: that one does not count",
            usually(|it| {
                it.force_update = true;
                it.outcome = ended(PULL, pulled("aaaa"));
            }),
            "status synced pulled seen, tell cached, start forced pull",
        ),
        (
            "is asked for of a digest",
            usually(|it| {
                it.by_digest = true;
                it.force_update = true;
            }),
            "start forced pull",
        ),
    ]);
}

#[test]
fn an_object_that_is_deleted() {
    check(&[
        ("lets go of its tag first", deleted(|_| ()), "tell cleaning, start remove"),
        (
            "has let go of its tag",
            deleted(|it| it.outcome = ended(Job::Remove, Outcome::Removed)),
            "remove finalizer, tell cleaned",
        ),
        ("waits while that goes on", deleted(|it| it.job = running(Job::Remove, 0)), ""),
        (
            "is shown where that takes its time",
            deleted(|it| it.job = running(Job::Remove, -2)),
            "status Terminating not cached ready=Terminating",
        ),
        (
            "could not let go",
            deleted(|it| {
                it.outcome = ended(Job::Remove, Outcome::RemoveFailed(failure("the cache is away")));
            }),
            "tell not cleaned, status Terminating not cached ready=Terminating",
        ),
        (
            "could not let go again, in the same way",
            deleted(|it| {
                it.status.phase = Some(Terminating);
                it.status.is_cached = Some(false);
                let message = "the cache is away".to_owned();
                it.status.ready = Some(Readiness { is: false, reason: "Terminating".to_owned(), message });
                it.memory = Memory {
                    removing: true,
                    failures: 3,
                    problem: Some("the cache is away".to_owned()),
                    ..Memory::default()
                };
                it.outcome = ended(Job::Remove, Outcome::RemoveFailed(failure("the cache is away")));
            }),
            "tell not cleaned again",
        ),
        (
            "tries again after a while",
            deleted(|it| {
                it.status.phase = Some(Terminating);
                it.status.is_cached = Some(false);
                let message = "the cache is away".to_owned();
                it.status.ready = Some(Readiness { is: false, reason: "Terminating".to_owned(), message });
                it.memory = Memory {
                    removing: true,
                    failures: 3,
                    failed_at: Some(at(-60)),
                    problem: Some("the cache is away".to_owned()),
                    ..Memory::default()
                };
            }),
            "start remove",
        ),
        ("waits for a cache that is in trouble", deleted(|it| it.cache_free_at = Some(at(60))), ""),
        (
            "whose tag another object keeps too goes at once",
            deleted(|it| it.others.share_tag = true),
            "remove finalizer",
        ),
        (
            "whose tag another object keeps since lets it be",
            deleted(|it| {
                it.others.share_tag = true;
                it.job = running(Job::Remove, -2);
            }),
            "abandon, remove finalizer",
        ),
        (
            "is no image goes at once",
            deleted(|it| {
                it.image = None;
                it.memory.image = None;
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "remove finalizer",
        ),
        (
            "was edited a moment before lets go of both tags",
            deleted(|it| it.memory.image = Some("docker.io/library/nginx:1.24".to_owned())),
            "let go of docker.io/library/nginx:1.24, tell cleaning, start remove",
        ),
        ("has not our finalizer, and waits for another's", deleted(|it| it.facts.finalizer = false), ""),
        (
            "was pulled meanwhile: that is no reason to keep it",
            deleted(|it| it.outcome = ended(PULL, pulled("aaaa"))),
            "tell cleaning, start remove",
        ),
        (
            "failed before: removing begins anew",
            deleted(|it| it.memory = Memory { failures: 9, failed_at: Some(at(-1)), ..Memory::default() }),
            "tell cleaning, start remove",
        ),
        (
            "is used again meanwhile goes: a new one is made",
            deleted(|it| it.usage = Some(used(5))),
            "tell cleaning, start remove",
        ),
        ("has a wrong name too", deleted(|it| it.naming = Naming::Duplicate), "tell cleaning, start remove"),
    ]);
}

#[test]
fn names_and_references() {
    check(&[
        (
            "made by hand under a wrong name is made again under the right one",
            with(new(), |it| {
                it.name = "nginx".to_owned();
                it.naming = Naming::Wrong { right: "docker.io-library-nginx-1.25".to_owned() };
            }),
            "recreate docker.io-library-nginx-1.25, give way",
        ),
        (
            "made by hand beside the right one goes",
            with(new(), |it| it.naming = Naming::Duplicate),
            "give way",
        ),
        (
            "that is no image says so",
            with(new(), |it| {
                it.image = None;
                it.source_image = "NGINX".to_owned();
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "status ErrImagePull not cached used=2 generation=1 ready=InvalidReference, tell failed",
        ),
        (
            "that is no image says so once",
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
            "was edited to another image of the same name: it is another image's status",
            usually(|it| it.memory.image = Some("docker.io/library/nginx:V1".to_owned())),
            "let go of docker.io/library/nginx:V1, \
             status none not cached digest=none upstream=none outdated synced pulled unavailable seen ready=, \
             start pull",
        ),
        (
            "was edited to another image, whose name it has not",
            usually(|it| {
                it.image = Some("docker.io/library/nginx:1.26".to_owned());
                it.naming = Naming::Wrong { right: "docker.io-library-nginx-1.26".to_owned() };
            }),
            "recreate docker.io-library-nginx-1.26, let go of docker.io/library/nginx:1.25, give way",
        ),
        (
            "was edited to what is no image",
            usually(|it| {
                it.image = None;
                it.source_image = "NGINX".to_owned();
                it.naming = Naming::Invalid { problem: "upper case".to_owned() };
            }),
            "let go of docker.io/library/nginx:1.25, \
             status ErrImagePull not cached ready=InvalidReference, tell failed",
        ),
        (
            "is shown as waiting no longer once it is there",
            usually(|it| {
                it.status.phase = Some(Synchronizing);
                it.status.is_cached = Some(false);
                it.outcome = ended(PULL, pulled("aaaa"));
            }),
            "status Ready cached synced pulled seen, tell cached",
        ),
    ]);
}
