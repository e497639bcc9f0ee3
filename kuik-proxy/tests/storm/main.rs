//! Load test with random upstream faults: two hundred clients pull images that share layers. Every success has the
//! right bytes; upstream sends no byte more than once more than necessary; and no task or descriptor leaks.
//!
//! It runs for ten seconds, or `KUIK_STORM_SECONDS` (`make storm TIME=120`). The seed is printed; `KUIK_STORM_SEED`
//! repeats its choices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail"
)]

#[path = "../harness/mod.rs"]
mod harness;
mod images;
mod seeded_rng;
mod upstream_faults;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use harness::{Harness, ask, begin, options, within_reason};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use images::{Image, image};
use kuik_core::client::Timeouts;
use kuik_proxy::pull_through::Revalidate;
use kuik_testkit::{Logged, Target};
use seeded_rng::SeededRng;

const CLIENTS: u64 = 200;

/// Interval between new images.
const IMAGE_EVERY: Duration = Duration::from_millis(150);

/// Number of newest images that are pulled.
const WANTED: u64 = 4;

/// Long enough for a busy machine, and short enough that a stall is over soon.
const PATIENCE: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    headers: Duration::from_secs(3),
    answer: Duration::from_secs(6),
    stall: Duration::from_secs(2),
};

/// State shared by all clients.
struct Storm {
    harness: Harness,
    seed: u64,
    end: Instant,
    /// Blobs of which a part arrived with other bytes.
    wrong_parts: Mutex<Vec<String>>,
    images: RwLock<Vec<Arc<Image>>>,
    succeeded: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    left: AtomicU64,
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

impl Storm {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// One of the images to pull now.
    fn wanted(&self, rng: &mut SeededRng) -> Arc<Image> {
        let images = self.images.read().unwrap();
        images[images.len().saturating_sub(1 + rng.within(0..WANTED) as usize)].clone()
    }

    /// Publishes one more image.
    fn release(&self) {
        let number = self.images.read().unwrap().len() as u64;
        let image = image(self.seed, number);
        image.add_to(&self.harness.upstream);
        self.images.write().unwrap().push(Arc::new(image));
    }

    /// Pulls images until the end, whatever the results.
    async fn client(self: Arc<Self>, number: u64) {
        let mut rng = SeededRng::new(self.seed ^ (number + 1).wrapping_mul(0xA24B_AED4_963E_E407));
        while Instant::now() < self.end {
            let image = self.wanted(&mut rng);
            if !self.manifest(&image, &mut rng).await {
                tokio::time::sleep(Duration::from_millis(rng.within(1..50))).await;
                continue;
            }
            for (digest, bytes) in &image.blobs {
                let path = self.harness.path("app", &format!("blobs/{digest}"));
                let part = rng.percent(20).then(|| {
                    let first = rng.within(0..bytes.len() as u64);
                    (first, rng.within(first..bytes.len() as u64))
                });
                self.blob(&path, bytes, part, &mut rng).await;
            }
        }
    }

    async fn manifest(&self, image: &Image, rng: &mut SeededRng) -> bool {
        let name = if rng.percent(50) { image.tag.clone() } else { image.manifest.digest().to_string() };
        let reply = ask(
            &self.harness.proxy,
            Method::GET,
            &self.harness.path("app", &format!("manifests/{name}")),
            &[],
        )
        .await;
        if reply.status == StatusCode::OK {
            assert!(reply.bytes() == image.manifest.bytes(), "{name} is another manifest");
            Self::count(&self.succeeded);
            return true;
        }
        Self::count(&self.refused);
        false
    }

    async fn blob(&self, path: &str, bytes: &[u8], part: Option<(u64, u64)>, rng: &mut SeededRng) {
        let range = part.map(|(first, last)| format!("bytes={first}-{last}"));
        let headers: Vec<_> = range.iter().map(|range| ("range", range.as_str())).collect();
        let response = begin(&self.harness.proxy, Method::GET, path, &headers).await;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            assert!(matches!(status.as_u16(), 404 | 429 | 502 | 503), "{path}: {status}");
            Self::count(&self.refused);
            return;
        }
        if rng.percent(5) {
            // The client disconnects in the middle.
            let _ = body.frame().await;
            Self::count(&self.left);
            return;
        }
        let Ok(got) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            Self::count(&self.broken);
            return;
        };
        let expected = match (status, part) {
            (StatusCode::PARTIAL_CONTENT, Some((first, last))) => &bytes[first as usize..=last as usize],
            _ => bytes,
        };
        // A range is not verified when it arrives; a whole blob is.
        if status == StatusCode::OK {
            assert!(got == expected, "{path}: {} other bytes", got.len());
        } else {
            assert_eq!(got.len(), expected.len(), "{path}");
            if got != expected {
                let digest = path.rsplit('/').next().unwrap().to_owned();
                self.wrong_parts.lock().unwrap().push(digest);
            }
        }
        Self::count(&self.succeeded);
    }
}

/// Compares the blob bytes that upstream sent with the necessary ones.
fn account(log: &[Logged], sizes: &HashMap<String, u64>, outages: usize) -> (u64, u64) {
    #[derive(Default)]
    struct Sent {
        bytes: u64,
        faults: u64,
    }
    let mut sent: HashMap<&str, Sent> = HashMap::new();
    for entry in log.iter().filter(|entry| entry.target == Target::Blob && entry.method == Method::GET) {
        let blob = sent.entry(entry.path.rsplit('/').next().unwrap()).or_default();
        blob.bytes += entry.bytes_sent;
        blob.faults += u64::from(entry.scripted);
    }
    for (digest, sent) in &sent {
        let size = sizes[*digest];
        // Each fault and each outage causes at most one more transfer; without any, none.
        let most = size * (1 + sent.faults + outages as u64) + 1000 * sent.faults;
        assert!(sent.bytes <= most, "{digest} of {size} bytes: {} after {} faults", sent.bytes, sent.faults);
    }
    let needed = sent.keys().map(|digest| sizes[*digest]).sum();
    (sent.values().map(|sent| sent.bytes).sum(), needed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn successful_pulls_have_the_right_bytes_and_nothing_leaks() {
    let seconds = setting("KUIK_STORM_SECONDS").unwrap_or(10);
    let seed = setting("KUIK_STORM_SEED").unwrap_or_else(|| {
        use std::hash::{BuildHasher as _, RandomState};
        RandomState::new().hash_one(seconds)
    });
    println!("KUIK_STORM_SEED={seed} KUIK_STORM_SECONDS={seconds}");
    let runtime = tokio::runtime::Handle::current().metrics();
    let (tasks_before, descriptors_before) = (runtime.num_alive_tasks(), descriptors());

    let harness = Harness::with(PATIENCE, options(Revalidate::Never)).await;
    let zero = AtomicU64::default;
    let storm = Arc::new(Storm {
        harness,
        seed,
        end: Instant::now() + Duration::from_secs(seconds),
        wrong_parts: Mutex::default(),
        images: RwLock::default(),
        succeeded: zero(),
        refused: zero(),
        broken: zero(),
        left: zero(),
    });
    storm.release();
    let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(storm.clone().client(number))).collect();

    let mut rng = SeededRng::new(seed);
    let (mut outages, mut next) = (0, Instant::now() + IMAGE_EVERY);
    while Instant::now() < storm.end {
        if Instant::now() >= next {
            storm.release();
            next += IMAGE_EVERY;
        }
        outages += upstream_faults::inject_faults(&storm.harness.upstream, &mut rng).await;
    }
    storm.harness.upstream.clear_script();
    for client in join_all(clients).await {
        client.unwrap();
    }

    // All faults have ended: all content is available, and no wrong content is stored.
    let images = storm.images.read().unwrap().clone();
    let mut sizes = HashMap::new();
    for image in &images {
        sizes.extend(image.blobs.iter().map(|(digest, bytes)| (digest.to_string(), bytes.len() as u64)));
        for (digest, bytes) in &image.blobs {
            let reply = storm.harness.get(&storm.harness.path("app", &format!("blobs/{digest}"))).await;
            assert!(reply.status == StatusCode::OK && reply.bytes() == bytes, "{digest}: {}", reply.status);
        }
    }
    within_reason(storm.harness.cache.drain()).await;
    let (sent, needed) = account(&storm.harness.upstream.log(), &sizes, outages);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} images; {} responses correct, {} refused, {} broken, {} canceled by the client; {outages} outages",
        images.len(),
        count(&storm.succeeded),
        count(&storm.refused),
        count(&storm.broken),
        count(&storm.left),
    );
    // A part is sent before the blob is verified, so it may be what upstream sent; the store has nothing wrong (above).
    let wrong = storm.wrong_parts.lock().unwrap().clone();
    let log = storm.harness.upstream.log();
    println!("{} parts with other bytes, as upstream sent them", wrong.len());
    for digest in &wrong {
        let was_faulty = log.iter().any(|entry| entry.scripted && entry.path.ends_with(digest.as_str()));
        assert!(was_faulty, "a part of {digest} has other bytes than upstream");
    }
    println!("upstream sent {sent} bytes of blobs, {:.2} times what it has", sent as f64 / needed as f64);
    assert!(sent <= 2 * needed, "upstream sent blobs more than twice");
    assert!(count(&storm.succeeded) > 0);

    drop(storm);
    let nothing_left = async {
        while runtime.num_alive_tasks() > tasks_before || descriptors() > descriptors_before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), nothing_left).await.is_err() {
        panic!(
            "{} tasks and {} descriptors at the end, {tasks_before} and {descriptors_before} at the start",
            runtime.num_alive_tasks(),
            descriptors(),
        );
    }
}
