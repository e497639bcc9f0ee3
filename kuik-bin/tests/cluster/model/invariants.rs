//! Invariants, checked whenever the system is idle.
//!
//! 1. An image in use is in the cache, or its status says why not. A refreshed image is as new as was asked for.
//! 2. Nothing in use or retained was evicted.
//! 3. Status never says `Ready` for what is missing, longer than one verify interval.
//! 4. Upstream sent what was needed, and at most 5 % more.
//! 5. Nothing unmanaged outlives its time, and none goes before while there is room.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use kuik_testkit::SampleImage;

use super::{
    cache::UNMANAGED_FOR,
    clusters::{Cluster, Object, VERIFY_INTERVAL},
    images::{APPS, IMAGES},
    world::World,
};

/// How long a status may be wrong: one verify interval, and the time in which a busy machine does the verification.
pub(super) const MOST_WRONG: Duration = VERIFY_INTERVAL.saturating_add(Duration::from_secs(10));

/// How often each invariant was checked.
#[derive(Default)]
pub(super) struct Checks(BTreeMap<&'static str, usize>);

impl Checks {
    fn add(&mut self, what: &'static str, count: usize) {
        *self.0.entry(what).or_default() += count;
    }

    pub(super) fn counts(&self) -> &BTreeMap<&'static str, usize> {
        &self.0
    }
}

/// Returns the images, by cluster and app, that a status reports as cached and that are not in the cache.
pub(super) async fn wrongly_ready(world: &mut World) -> BTreeSet<(usize, usize)> {
    let (mut wrong, mut ready) = (BTreeSet::new(), 0);
    for (number, cluster) in world.clusters.iter().enumerate() {
        let objects = cluster.objects().await;
        for app in 0..APPS {
            let name = world.images.object_name(app);
            let object = objects.iter().find(|object| object.name == name);
            if object.is_some_and(|object| object.is_cached || object.phase == "Ready") {
                ready += 1;
                if world.stored(app).is_none() {
                    wrong.insert((number, app));
                }
            }
        }
    }
    world.checks.add("an image that is Ready is in the cache", ready);
    wrong
}

/// Returns the differences from the final state that the system is still to reach.
pub(super) async fn unsettled(world: &World) -> Vec<String> {
    let (mut problems, mut managed) = (Vec::new(), BTreeSet::new());
    for (number, cluster) in world.clusters.iter().enumerate() {
        let (objects, reported) = (cluster.objects().await, cluster.reported(&world.cache).await);
        for app in 0..APPS {
            let name = world.images.object_name(app);
            let object = objects.iter().find(|object| object.name == name);
            managed.extend(object.map(|_| app));
            let state = &reported["repositories"][&world.images.repository(app)]["v1"]["state"];
            let unreported = (state.as_str() != needed(cluster, app, object)).then_some("it is not reported");
            if let Some(problem) = problem(world, cluster, app, object).or(unreported) {
                let status = object.map_or("none", |object| &object.status);
                problems.push(format!("cluster {number}, app {app}: {problem}; status: {status}"));
            }
        }
    }
    problems.extend(outlived(world, &managed));
    problems
}

/// Returns the state that the cache is to know.
fn needed(cluster: &Cluster, app: usize, object: Option<&Object>) -> Option<&'static str> {
    let object = object?;
    Some(match (cluster.used_by(app) > 0, object.retained) {
        (true, _) => "inUse",
        (false, true) => "retained",
        (false, false) => "unused",
    })
}

fn problem(world: &World, cluster: &Cluster, app: usize, object: Option<&Object>) -> Option<&'static str> {
    let used_by = cluster.used_by(app);
    let Some(object) = object else { return (used_by > 0).then_some("a pod uses it, and it has no object") };
    let (stored, is_upstream, is_small) =
        (world.stored(app), world.images.apps[app].is_upstream, world.cache.is_small);
    let says_why =
        object.phase != "Ready" && object.not_ready_because.as_ref().is_some_and(|it| !it.is_empty());
    if !cluster.may_count(app, object.pods) {
        Some("its count of pods is wrong")
    } else if object.expires_at.is_some() != (used_by == 0 && !object.retained) {
        Some("it expires if it is unused, and only then")
    } else if is_small && says_why && stored < world.images.apps[app].versions.len().checked_sub(1) {
        // A full cache serves a newer version from upstream, without storing it; the older one stays in the store.
        None
    } else if object.is_cached != stored.is_some() {
        Some("status and cache differ")
    } else if stored.is_none() && is_upstream && !is_small {
        Some("it is upstream, and not in the cache")
    } else if stored.is_none() && !says_why {
        Some("it is missing, and status does not say why")
    } else if is_upstream && !is_small && stored < world.refreshed.get(&app).copied() {
        Some("it was refreshed, and the cache has an older version")
    } else {
        None
    }
}

/// Returns the versions in the cache that no cluster manages, and whose time is over.
fn outlived(world: &World, managed: &BTreeSet<usize>) -> Vec<String> {
    let mut problems = Vec::new();
    for app in 0..IMAGES {
        let (repository, pulls) =
            (world.images.repository(app), world.cache.pulls(&world.images.repository(app)));
        let tagged = world.cache.tag(&repository, "v1");
        for version in &world.images.apps[app].versions {
            let top = version.index().digest();
            let is_managed = managed.contains(&app) && tagged.as_ref() == Some(top);
            if is_managed || !world.cache.has_manifest(&repository, top) {
                continue;
            }
            let recorded = manifests(version).filter_map(|digest| pulls.get(digest)).copied();
            let known = [world.cache.written(top), world.pulled.get(top).copied()];
            let last = recorded.chain(known.into_iter().flatten()).max().unwrap_or(SystemTime::UNIX_EPOCH);
            if SystemTime::now().duration_since(last).is_ok_and(|age| age > UNMANAGED_FOR.1) {
                problems.push(format!("app {app}: {top} is unmanaged, and was last pulled at {last:?}"));
            }
        }
    }
    problems
}

fn manifests(version: &SampleImage) -> impl Iterator<Item = &str> {
    let all = version.manifests().iter().chain([version.index()]);
    all.map(|manifest| manifest.digest().as_str())
}

/// Checks that nothing left the cache that should stay, and that upstream sent no more than was needed.
pub(super) async fn check(world: &mut World) {
    let mut problems = Vec::new();
    let evicted: Vec<_> = world.held.iter().filter(|app| world.stored(**app).is_none()).collect();
    if !evicted.is_empty() {
        problems.push(format!("used or retained, and no longer in the cache: {evicted:?}"));
    }
    world.checks.add("an image that is used or retained was not evicted", world.held.len());
    let (needed, excess) = world.images.upstream_bytes();
    if excess > needed / 20 {
        problems.push(format!("upstream sent {needed} bytes that were needed, and {excess} more"));
    }
    world.checks.add("upstream sent at most 5 % more than was needed", 1);
    problems.extend(gone_early(world));
    if !problems.is_empty() {
        world.fail(&problems);
    }
    hold(world).await;
}

/// Returns the unmanaged images that have left a cache with room before their time was over.
fn gone_early(world: &mut World) -> Vec<String> {
    world.kept.retain(|_, (_, at)| at.elapsed() < UNMANAGED_FOR.0);
    world.checks.add("an unmanaged image was not removed before its time", world.kept.len());
    let mut problems = Vec::new();
    for (app, (top, at)) in &world.kept {
        if !world.cache.has_manifest(&world.images.repository(*app), top) {
            problems.push(format!("app {app} was pulled {:.1?} ago, and is gone", at.elapsed()));
        }
    }
    problems
}

/// Remembers what is used or retained, and in the cache. Counts what [`unsettled`] has just found to be right.
async fn hold(world: &mut World) {
    let (mut held, mut managed) = (BTreeSet::new(), BTreeSet::new());
    let mut used = 0;
    for cluster in &world.clusters {
        let objects = cluster.objects().await;
        for app in 0..APPS {
            let name = world.images.object_name(app);
            let object = objects.iter().find(|object| object.name == name);
            managed.extend(object.map(|_| app));
            used += usize::from(cluster.used_by(app) > 0);
            let is_retained = object.is_some_and(|object| object.retained);
            if (world.is_used(app) || is_retained) && world.stored(app).is_some() {
                held.insert(app);
            }
        }
    }
    world.held = held;
    world.checks.add("an image in use is in the cache, or its status says why not", used);
    world.checks.add("no unmanaged image outlived its time", IMAGES - managed.len());
}
