//! The random steps.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    clusters::{Cluster, Object},
    images::{APPS, IMAGES},
    random::Random,
    world::{PATIENCE, World, within_or},
};
use crate::support::Remote;

/// How far the clock of the cache is moved: whole minutes, since pulls are recorded to the minute. Longer than unmanaged
/// images are kept, and shorter than the document of a cluster counts.
const MOVED: Duration = Duration::from_secs(3600);

impl World {
    /// Does one random step.
    pub(super) async fn step(&mut self, random: &mut Random) {
        let app = random.below(APPS as u64) as usize;
        let cluster = random.below(self.clusters.len() as u64) as usize;
        match random.below(100) {
            0..30 => self.start_pod(cluster, app).await,
            30..49 => {
                let pods: Vec<_> = self.clusters[cluster].pods.keys().cloned().collect();
                if let Some(pod) = random.one_of(&pods) {
                    self.stop_pod(cluster, &pod).await;
                }
            }
            49..54 => {
                self.note("move tag", format!("move the tag of app {app}"));
                self.images.publish(app);
            }
            54..58 => self.refresh(cluster, app).await,
            58..62 => {
                self.note("vanish upstream", format!("app {app} vanishes upstream"));
                self.images.vanish(app);
                self.refreshed.remove(&app);
            }
            62..67 if !self.images.apps[app].is_upstream => {
                self.note("return upstream", format!("app {app} is upstream again"));
                self.images.publish(app);
            }
            67..71 => self.retain(cluster, app, true).await,
            71..74 => self.retain(cluster, app, false).await,
            74..78 => self.expire(cluster, app).await,
            78..79 => self.expire_all(cluster).await,
            79..86 => self.pull(random.below(IMAGES as u64) as usize).await,
            86..88 => self.move_clock().await,
            88..91 => {
                self.note("kill cache", "kill the cache, and start it again".to_owned());
                self.kill_cache().await;
                self.cache.resume().await;
            }
            91..92 => self.wipe_cache().await,
            92..95 => self.resize_cache().await,
            95..98 => {
                self.note("restart controllers", format!("restart the controllers of cluster {cluster}"));
                self.clusters[cluster].restart_controllers().await;
            }
            98..100 if self.clusters.len() == 1 => {
                self.note("cluster joins", "a second cluster joins".to_owned());
                self.clusters.push(Cluster::start(&self.cache.address).await);
            }
            98 => self.leave(cluster).await,
            _ => {}
        }
    }

    async fn start_pod(&mut self, cluster: usize, app: usize) {
        self.note("start pod", format!("start a pod of app {app} in cluster {cluster}"));
        let image = self.images.reference(app);
        self.clusters[cluster].start_pod(app, &image).await;
    }

    async fn stop_pod(&mut self, cluster: usize, pod: &str) {
        self.note("stop pod", format!("stop {pod} of cluster {cluster}"));
        let app = self.clusters[cluster].stop_pod(pod).await;
        self.released(app);
    }

    /// Asks for the version that is upstream now.
    async fn refresh(&mut self, cluster: usize, app: usize) {
        let name = self.images.object_name(app);
        let force =
            json!({ "metadata": { "annotations": { "cachedimage.kuik.enix.io/forceUpdate": "true" } } });
        if self.clusters[cluster].patch(&name, &force).await && self.images.apps[app].is_upstream {
            self.note("refresh", format!("refresh app {app} in cluster {cluster}"));
            self.refreshed.insert(app, self.images.apps[app].versions.len() - 1);
        }
    }

    async fn retain(&mut self, cluster: usize, app: usize, retain: bool) {
        let name = self.images.object_name(app);
        if self.clusters[cluster].patch(&name, &json!({ "spec": { "retain": retain } })).await {
            self.note("retain", format!("retain app {app} in cluster {cluster}: {retain}"));
            self.released(app);
        }
    }

    /// Moves the expiry date of an image that no pod of the cluster uses into the past.
    async fn expire(&mut self, cluster: usize, app: usize) {
        if self.clusters[cluster].used_by(app) > 0 {
            return;
        }
        let expired = json!({ "spec": { "expiresAt": "2020-01-01T00:00:00Z" } });
        let name = self.images.object_name(app);
        if self.clusters[cluster].patch(&name, &expired).await {
            self.note("expire", format!("expire app {app} in cluster {cluster}"));
            self.released(app);
            self.refreshed.remove(&app);
        }
    }

    /// Moves the clock of the controllers of a cluster past the date of every image that expires, and back when they have
    /// gone.
    async fn expire_all(&mut self, cluster: usize) {
        self.note(
            "expire all",
            format!("forty days pass for the controllers of cluster {cluster}, and pass back"),
        );
        (0..APPS).for_each(|app| self.released(app));
        // A date that was set by a clock that was ahead may be later.
        let soon = Timestamp::now() + SignedDuration::from_hours(39 * 24);
        let expires = move |object: &Object| object.expires_at.is_some_and(|date| date < soon);
        let dated = |objects: Vec<Object>| objects.into_iter().filter(expires).map(|it| it.uid);
        let before: BTreeSet<_> = dated(self.clusters[cluster].objects().await).collect();
        self.clusters[cluster].restart_controllers_at("+40d").await;
        let gone = within_or(PATIENCE, async || {
            let left: BTreeSet<_> = dated(self.clusters[cluster].objects().await).collect();
            left.is_disjoint(&before)
        });
        if !gone.await {
            self.fail(&["an image that has expired is still there".to_owned()]);
        }
        self.clusters[cluster].restart_controllers().await;
        self.refreshed.clear();
    }

    /// Pulls an image as a node does for a pod that kuik does not manage: the tag is resolved, and everything is pulled by
    /// its digest.
    async fn pull(&mut self, app: usize) {
        self.note("pull", format!("pull app {app} without a pod"));
        self.images.allow_missing(&self.cache, [app].into_iter());
        let mut remote = Remote::new(self.cache.process().address(), &self.images.repository(app));
        let resolved = remote.resolve("v1").await;
        let known = self.images.apps[app].versions.iter();
        let version = resolved.ok().flatten().and_then(|digest| {
            known.rev().find(|version| version.index().digest().as_str() == digest).cloned()
        });
        let pulled = match &version {
            Some(version) => remote.pull(version).await.is_ok(),
            None => false,
        };
        // An image that no cluster manages is pulled as without kuik.
        if !pulled && self.images.apps[app].is_upstream && app >= APPS {
            self.fail(&[format!("app {app} is upstream, and could not be pulled")]);
        }
        if let (true, Some(version)) = (pulled, version) {
            self.note_pull(app, &version).await;
        }
    }

    /// Moves the clock of the cache forward, while it does not run.
    async fn move_clock(&mut self) {
        self.note("move clock", format!("{} minutes pass for the cache", MOVED.as_secs() / 60));
        self.kill_cache().await;
        self.cache.age(MOVED);
        for pulled in self.pulled.values_mut() {
            *pulled -= MOVED;
        }
        self.cache.resume().await;
    }

    /// Replaces the cache by an empty one.
    async fn wipe_cache(&mut self) {
        self.note("replace cache", "replace the cache by an empty one".to_owned());
        self.kill_cache().await;
        self.cache.wipe();
        self.held.clear();
        self.cache.resume().await;
    }

    async fn resize_cache(&mut self) {
        self.cache.is_small = !self.cache.is_small;
        let kind = if self.cache.is_small { "shrink cache" } else { "grow cache" };
        self.note(kind, format!("restart the cache, small: {}", self.cache.is_small));
        self.kill_cache().await;
        self.cache.resume().await;
    }

    /// Removes a cluster with its document, as its administrators are told to.
    async fn leave(&mut self, cluster: usize) {
        self.note("cluster leaves", format!("cluster {cluster} leaves"));
        self.clusters.remove(cluster).leave(&self.cache).await;
        (0..APPS).for_each(|app| self.released(app));
    }
}
