//! One cluster of the model: its API server, its controllers and its pods.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use http::Request;
use jiff::Timestamp;
use kube_client::Client;
use kuik_core::retention::RETENTION_PATH;
use kuik_testkit::real::{ApiServer, KubeUser};
use serde_json::{Value, json};

use super::cache::Cache;
use crate::support::{Clock, Kuik, api_server, ask, get, pod};

/// How often the controllers compare the status of each image with the cache.
pub(super) const VERIFY_INTERVAL: Duration = Duration::from_secs(1);

/// When the number of pods in a status is right at the latest: writes that concern only this number are spaced by two
/// minutes while pods keep coming.
const COUNT_FOLLOWS: Duration = Duration::from_secs(150);

pub(super) struct Cluster {
    client: Client,
    user: KubeUser,
    /// With their clock.
    controllers: Option<(Kuik, Clock)>,
    cache: String,
    /// The app that each pod runs, by the name of the pod.
    pub(super) pods: BTreeMap<String, usize>,
    /// When a pod of each app came or went.
    changed: BTreeMap<usize, Instant>,
    created: usize,
    /// Path of its retention document.
    document: String,
    /// Ends with the cluster.
    _server: ApiServer,
}

/// A CachedImage, as far as the model knows it.
pub(super) struct Object {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) is_cached: bool,
    pub(super) phase: String,
    /// The reason of the condition `Ready`, if that is not true.
    pub(super) not_ready_because: Option<String>,
    pub(super) pods: u64,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) retained: bool,
    /// All of its status, for people.
    pub(super) status: String,
}

impl Cluster {
    pub(super) async fn start(cache: &str) -> Self {
        let server = api_server().await;
        let client = server.admin().client().await.unwrap();
        let user = server.user("controllers", None).unwrap();
        let namespace = Request::get("/api/v1/namespaces/kube-system").body(Vec::new()).unwrap();
        let namespace: Value = client.request(namespace).await.unwrap();
        let document = format!("{RETENTION_PATH}{}", namespace["metadata"]["uid"].as_str().unwrap());
        let mut cluster = Self {
            client,
            user,
            controllers: None,
            cache: cache.to_owned(),
            pods: BTreeMap::new(),
            changed: BTreeMap::new(),
            created: 0,
            document,
            _server: server,
        };
        cluster.restart_controllers().await;
        cluster
    }

    /// Kills the controllers, if they run, and starts others.
    pub(super) async fn restart_controllers(&mut self) {
        self.restart_controllers_at("+0").await;
    }

    /// Restarts the controllers with a clock that is ahead by `offset`.
    pub(super) async fn restart_controllers_at(&mut self, offset: &str) {
        if let Some((running, _)) = self.controllers.take() {
            running.kill().await;
        }
        let interval = format!("--verify-interval={}s", VERIFY_INTERVAL.as_secs());
        let arguments = ["--registry-token-secret=", "--ignore-pull-policy-always=false", &interval];
        let clock = Clock::at(offset);
        let running = Kuik::controllers_by(&clock, &self.user, &self.cache, &arguments).await;
        self.controllers = Some((running, clock));
    }

    pub(super) async fn start_pod(&mut self, app: usize, image: &str) {
        self.created += 1;
        let name = format!("pod-{}", self.created);
        let created = Request::post("/api/v1/namespaces/shop/pods")
            .header("content-type", "application/json")
            .body(pod(&name, image).to_string().into_bytes())
            .unwrap();
        self.client.request::<Value>(created).await.unwrap();
        self.pods.insert(name, app);
        self.changed.insert(app, Instant::now());
    }

    /// Deletes a pod; returns the app that it ran.
    pub(super) async fn stop_pod(&mut self, name: &str) -> usize {
        let deleted = Request::delete(format!("/api/v1/namespaces/shop/pods/{name}"))
            .header("content-type", "application/json")
            .body(br#"{"gracePeriodSeconds": 0}"#.to_vec())
            .unwrap();
        self.client.request::<Value>(deleted).await.unwrap();
        let app = self.pods.remove(name).unwrap();
        self.changed.insert(app, Instant::now());
        app
    }

    /// Whether `count` is a number of pods that a status may have for `app`: it is exact, or follows later. That there is
    /// none, or one again, is reported at once.
    pub(super) fn may_count(&self, app: usize, count: u64) -> bool {
        let used_by = self.used_by(app);
        let follows = self.changed.get(&app).is_some_and(|at| at.elapsed() < COUNT_FOLLOWS);
        count == used_by || follows && (count > 0) == (used_by > 0)
    }

    /// The number of pods that run `app`.
    pub(super) fn used_by(&self, app: usize) -> u64 {
        self.pods.values().filter(|used| **used == app).count() as u64
    }

    /// Ends the cluster, and removes its document from the cache.
    pub(super) async fn leave(mut self, cache: &Cache) {
        if let Some((running, _)) = self.controllers.take() {
            running.kill().await;
        }
        assert_eq!(ask(cache.process().address(), "DELETE", &self.document).await.status, 204);
    }

    /// Returns what the cache knows about the images of the cluster.
    pub(super) async fn reported(&self, cache: &Cache) -> Value {
        let document = get(cache.process().address(), &self.document).await;
        serde_json::from_slice(&document.body).unwrap_or_default()
    }

    /// Changes a CachedImage; returns whether it exists.
    pub(super) async fn patch(&self, name: &str, patch: &Value) -> bool {
        let patched = Request::patch(format!("/apis/kuik.enix.io/v1alpha1/cachedimages/{name}"))
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string().into_bytes())
            .unwrap();
        match self.client.request::<Value>(patched).await {
            Err(kube_client::Error::Api(status)) if status.code == 404 => false,
            outcome => {
                outcome.unwrap();
                true
            }
        }
    }

    /// Annotates every CachedImage, as `kubectl annotate cachedimages --all --overwrite timestamp=…` does.
    pub(super) async fn annotate_all(&self, timestamp: &str) {
        for object in self.objects().await {
            self.patch(&object.name, &json!({ "metadata": { "annotations": { "timestamp": timestamp } } }))
                .await;
        }
    }

    pub(super) async fn objects(&self) -> Vec<Object> {
        let listed = Request::get("/apis/kuik.enix.io/v1alpha1/cachedimages").body(Vec::new()).unwrap();
        let list: Value = self.client.request(listed).await.unwrap();
        let items = list["items"].as_array().unwrap();
        items.iter().filter(|item| item["metadata"]["deletionTimestamp"].is_null()).map(Object::of).collect()
    }

    pub(super) fn log(&self) -> String {
        self.controllers.as_ref().map(|(running, _)| running.log()).unwrap_or_default()
    }
}

impl Object {
    fn of(item: &Value) -> Self {
        let status = &item["status"];
        let ready = status["conditions"].as_array().into_iter().flatten().find(|it| it["type"] == "Ready");
        let reason =
            ready.filter(|it| it["status"] != "True").map(|it| it["reason"].as_str().unwrap_or_default());
        Self {
            name: item["metadata"]["name"].as_str().unwrap().to_owned(),
            uid: item["metadata"]["uid"].as_str().unwrap().to_owned(),
            is_cached: status["isCached"] == true,
            phase: status["phase"].as_str().unwrap_or_default().to_owned(),
            not_ready_because: reason.map(str::to_owned),
            pods: status["usedBy"]["count"].as_u64().unwrap_or(0),
            expires_at: item["spec"]["expiresAt"].as_str().map(|date| date.parse().unwrap()),
            retained: item["spec"]["retain"] == true,
            status: status.to_string(),
        }
    }
}
