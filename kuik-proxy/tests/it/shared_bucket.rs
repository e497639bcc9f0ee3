//! Several processes on one bucket that all take pushes and collect garbage, without a grace period: content
//! acknowledged by one of them is complete, whatever the others remove.
//!
//! Each has its own delays, so that requests interleave in many orders; time is virtual. Random choices come from a
//! seed that is printed: `KUIK_SHARED_SEED` repeats it.

#![cfg(feature = "object-storage")]

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kuik_core::{
    content::{ContentSource as _, Digest, Freshness, MediaType, RegistryStore, TagOrDigest},
    reference::RepositoryName,
};
use kuik_proxy::{
    maintenance::gc::{Collector, GcOptions, LeasedStore, Leases, NoticePeriod},
    registry::push::{RegistryMetrics, RegistryOptions, RegistryService},
    route::Names,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
    store::ObjectStorage,
};
use object_store::{
    memory::InMemory,
    throttle::{ThrottleConfig, ThrottledStore},
};
use tokio::{task::JoinSet, time::sleep};
use tower::ServiceExt as _;

const PROCESSES: u64 = 3;
const PUSHERS_OF_EACH: u64 = 2;
const PUSHES: u64 = 40;
/// Number of blobs. Few, so that one process removes what another one needs.
const BLOBS: u64 = 6;
const TAGS: u64 = 3;

/// One process: a registry, and the collector of its store.
#[derive(Clone)]
struct Process {
    registry: RegistryService,
    collector: Collector,
}

impl Process {
    fn start(bucket: &Arc<InMemory>, delays: ThrottleConfig, scratch: &std::path::Path) -> Self {
        let bucket = ThrottledStore::new(bucket.clone(), delays);
        let store = ObjectStorage::new(Arc::new(bucket), "memory", "", scratch);
        let leases = Leases::shared(Arc::new(store.clone()), NoticePeriod::default());
        let store: Arc<dyn RegistryStore> = Arc::new(store);
        let collector = Collector::new(store.clone(), leases.clone());
        let leased = LeasedStore::new(store, leases);
        let mut options = ProxyOptions::default();
        options.names = Names::Local;
        let pull = ProxyService::new(Arc::new(leased.clone()), options, ProxyMetrics::default());
        let options = RegistryOptions::default();
        Self {
            registry: RegistryService::new(leased, pull, None, options, RegistryMetrics::default()),
            collector,
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> StatusCode {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("content-type", MediaType::OCI_MANIFEST.as_str());
        let request = request.header("content-length", body.len());
        let answer = self.registry.clone().oneshot(request.body(Full::new(body)).unwrap()).await.unwrap();
        let status = answer.status();
        answer.into_body().collect().await.unwrap();
        status
    }

    /// Pushes an image as clients do: existing blobs are not sent. Returns whether it was acknowledged.
    async fn push(&self, blobs: &[Bytes], tag: &str) -> bool {
        for blob in blobs {
            let digest = Digest::sha256(blob);
            if self.ask(Method::HEAD, &format!("/v2/app/blobs/{digest}"), Bytes::new()).await
                != StatusCode::OK
            {
                let path = format!("/v2/app/blobs/uploads/?digest={digest}");
                let sent = self.ask(Method::POST, &path, blob.clone()).await;
                assert!(matches!(sent, StatusCode::CREATED | StatusCode::SERVICE_UNAVAILABLE), "{sent}");
            }
        }
        match self.ask(Method::PUT, &format!("/v2/app/manifests/{tag}"), manifest(blobs)).await {
            StatusCode::CREATED => true,
            // Its blobs are gone already, or it took too long: nothing is stored, and it is pushed again.
            StatusCode::BAD_REQUEST | StatusCode::SERVICE_UNAVAILABLE => false,
            other => panic!("{other}"),
        }
    }

    async fn collect(self) -> ! {
        let mut options = GcOptions::default();
        (options.grace, options.delete_untagged) = (Duration::ZERO, true);
        loop {
            self.collector.run(&options, |_| {}).await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
    }
}

fn manifest(blobs: &[Bytes]) -> Bytes {
    let entry = |blob: &Bytes| {
        format!(r#"{{"mediaType":"a/b","digest":"{}","size":{}}}"#, Digest::sha256(blob), blob.len())
    };
    let layers: Vec<String> = blobs[1..].iter().map(entry).collect();
    let (config, layers) = (entry(&blobs[0]), layers.join(","));
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#).into()
}

/// Random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn delays(&mut self) -> ThrottleConfig {
        let mut delay = |most| Duration::from_millis(self.below(most));
        ThrottleConfig {
            wait_get_per_call: delay(400),
            wait_put_per_call: delay(900),
            wait_list_per_call: delay(900),
            wait_delete_per_call: delay(3000),
            ..ThrottleConfig::default()
        }
    }
}

/// Pushes and deletes under its own tags; returns the expected final state of each.
async fn pusher(
    process: Process,
    number: u64,
    mut random: Random,
) -> BTreeMap<String, (Digest, Vec<Digest>)> {
    let mut model = BTreeMap::new();
    for _ in 0..PUSHES {
        let tag = format!("tag-{number}-{}", random.below(TAGS));
        if random.below(3) == 0 {
            let deleted =
                process.ask(Method::DELETE, &format!("/v2/app/manifests/{tag}"), Bytes::new()).await;
            assert_eq!(deleted == StatusCode::ACCEPTED, model.remove(&tag).is_some(), "{tag}: {deleted}");
        } else {
            let first = random.below(BLOBS);
            let blobs = [first, (first + 1 + random.below(BLOBS - 1)) % BLOBS];
            let blobs = blobs.map(|blob| Bytes::from(format!("blob {blob}")));
            if process.push(&blobs, &tag).await {
                let digest = Digest::sha256(&manifest(&blobs));
                model.insert(tag, (digest, blobs.iter().map(|blob| Digest::sha256(blob)).collect()));
            }
        }
        sleep(Duration::from_millis(random.below(20_000))).await;
    }
    model
}

#[tokio::test(start_paused = true)]
async fn processes_never_remove_content_acknowledged_by_another() {
    let seed = std::env::var("KUIK_SHARED_SEED")
        .map_or_else(|_| RandomState::new().build_hasher().finish(), |text| text.parse().unwrap());
    println!("KUIK_SHARED_SEED={seed}");
    let mut random = Random(seed | 1);
    let (bucket, scratch) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let processes: Vec<_> =
        (0..PROCESSES).map(|_| Process::start(&bucket, random.delays(), scratch.path())).collect();
    let (mut collectors, mut pushers) = (JoinSet::new(), JoinSet::new());
    for (process, place) in processes.iter().zip(0..) {
        collectors.spawn(process.clone().collect());
        for number in 0..PUSHERS_OF_EACH {
            let chance = Random(random.below(u64::MAX) | 1);
            pushers.spawn(pusher(process.clone(), place * PUSHERS_OF_EACH + number, chance));
        }
    }
    let model: BTreeMap<_, _> = pushers.join_all().await.into_iter().flatten().collect();
    assert!(model.len() > 4, "most pushes succeed: {model:?}");

    let (store, app) =
        (ObjectStorage::new(bucket, "memory", "", scratch.path()), RepositoryName::local("app").unwrap());
    let whole = async || {
        for (tag, (digest, blobs)) in &model {
            let at = TagOrDigest::Tag(tag.parse().unwrap());
            let found = store.manifest(&app, &at, Freshness::Cached).await;
            assert_eq!(found.unwrap().content.digest(), digest, "{tag}");
            for blob in blobs {
                store
                    .blob_size(&app, blob)
                    .await
                    .unwrap_or_else(|error| panic!("{tag} lacks {blob}: {error}"));
            }
        }
    };
    whole().await;
    // And nothing they still do removes any of it.
    sleep(Duration::from_secs(600)).await;
    whole().await;
    collectors.abort_all();
}
