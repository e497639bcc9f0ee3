//! Tests of the reporter with a scripted cache, on paused time.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Mutex;

use futures::channel::mpsc;

use super::*;
use crate::{
    content::{SourceError, SourceErrorKind},
    reference::ImageReference,
    retention::ImageRetention,
};

/// A cache that records requests.
#[derive(Debug, Default)]
struct Cache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    document: Option<Bytes>,
    fails: bool,
    unsupported: bool,
    puts: usize,
    heads: usize,
}

impl Cache {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// Returns the numbers of `PUT` and `HEAD` requests so far.
    fn requests(&self) -> (usize, usize) {
        self.with(|state| (state.puts, state.heads))
    }
}

#[async_trait]
impl RetentionSink for Arc<Cache> {
    async fn put(&self, _: &ClusterId, document: Bytes) -> Result<(), RetentionError> {
        self.with(|state| {
            state.puts += 1;
            if state.unsupported {
                return Err(RetentionError::Unsupported);
            }
            if state.fails {
                return Err(SourceError::new(SourceErrorKind::Unavailable, "PUT").into());
            }
            state.document = Some(document);
            Ok(())
        })
    }

    async fn etag(&self, _: &ClusterId) -> Result<Option<String>, RetentionError> {
        self.with(|state| {
            state.heads += 1;
            Ok(state.document.as_ref().map(|text| etag(text)))
        })
    }
}

/// A reporter that runs, and what it reports.
struct Cluster {
    cache: Arc<Cache>,
    reporter: RetentionReporter,
    document: Arc<Mutex<Option<RetentionDocument>>>,
    changes: mpsc::UnboundedSender<()>,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Cluster {
    fn start(cache: Arc<Cache>, known: bool) -> Self {
        let id = "cluster".parse().unwrap();
        let reporter = RetentionReporter::new(Arc::new(cache.clone()), id, Timing::default());
        let document = Arc::new(Mutex::new(known.then(RetentionDocument::default)));
        let (changes, changed) = mpsc::unbounded();
        let (runs, built) = (reporter.clone(), document.clone());
        let running =
            tokio::spawn(async move { runs.run_with(changed, || built.lock().unwrap().clone()).await });
        Self { cache, reporter, document, changes, running }
    }

    fn image(text: &str) -> SourceImage {
        SourceImage::new(&ImageReference::parse(text).unwrap()).unwrap()
    }

    fn add(&self, image: &str) {
        let image = Self::image(image);
        let mut document = self.document.lock().unwrap();
        let document = document.get_or_insert_default();
        for name in document::names(&image) {
            document.insert(image.repository(), &name, ImageRetention::in_use());
        }
        self.changes.unbounded_send(()).unwrap();
    }

    fn is_known(&self) -> bool {
        let document = self.document.lock().unwrap().as_ref().map(RetentionDocument::to_json);
        self.cache.with(|state| state.document == document)
    }
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_sent_together_and_nothing_but_checks_while_nothing_changes() {
    let cluster = Cluster::start(Arc::default(), true);
    seconds(1).await;
    assert_eq!(cluster.cache.requests(), (1, 0), "even an empty document is sent");
    for number in 0..100 {
        cluster.add(&format!("app:{number}"));
        sleep(Duration::from_millis(10)).await;
    }
    seconds(3).await;
    assert_eq!(cluster.cache.requests(), (2, 0));
    assert!(cluster.is_known());
    cluster.changes.unbounded_send(()).unwrap();
    seconds(3).await;
    assert_eq!(cluster.cache.requests(), (2, 0), "the document is the same");
    seconds(3600).await;
    let (puts, heads) = cluster.cache.requests();
    assert!(puts == 2 && (70..=73).contains(&heads), "one check in 50 s: {heads}");
    seconds(24 * 3600).await;
    assert_eq!(cluster.cache.requests().0, 3, "it is renewed once a day");
}

#[tokio::test(start_paused = true)]
async fn document_is_sent_only_after_usage_is_known() {
    let cluster = Cluster::start(Arc::default(), false);
    seconds(120).await;
    assert_eq!(cluster.cache.requests(), (0, 0));
    cluster.add("app:1");
    seconds(3).await;
    assert!(cluster.is_known());
}

#[tokio::test(start_paused = true)]
async fn lost_document_is_sent_again_within_a_verify_interval() {
    let cluster = Cluster::start(Arc::default(), true);
    cluster.add("app:1");
    seconds(5).await;
    assert!(cluster.is_known());
    cluster.cache.with(|state| state.document = None);
    seconds(51).await;
    assert!(cluster.is_known());
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_with_backoff_until_one_succeeds() {
    let cache = Arc::new(Cache::default());
    cache.with(|state| state.fails = true);
    let cluster = Cluster::start(cache, true);
    for _ in 0..60 {
        cluster.add("app:1");
        seconds(1).await;
    }
    let (puts, _) = cluster.cache.requests();
    assert!((5..=7).contains(&puts), "after 1, 2, 4, 8, 16 and 32 s, whatever changes: {puts}");
    let began = Instant::now();
    cluster.reporter.ensure(&Cluster::image("app:2")).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "a copy does not wait");
    cluster.cache.with(|state| state.fails = false);
    seconds(65).await;
    assert!(cluster.is_known());
}

#[tokio::test(start_paused = true)]
async fn unsupported_cache_gets_one_request_a_day() {
    let cache = Arc::new(Cache::default());
    cache.with(|state| state.unsupported = true);
    let cluster = Cluster::start(cache, true);
    for _ in 0..60 {
        cluster.add("app:1");
        seconds(60).await;
    }
    assert_eq!(cluster.cache.requests(), (1, 0));
    let began = Instant::now();
    cluster.reporter.ensure(&Cluster::image("app:2")).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "a copy does not wait");
    cluster.cache.with(|state| state.unsupported = false);
    seconds(24 * 3600).await;
    assert!(cluster.is_known(), "it was replaced by a newer version");
}

#[tokio::test(start_paused = true)]
async fn copy_waits_until_its_image_is_reported_or_time_is_up() {
    let cluster = Cluster::start(Arc::default(), true);
    seconds(10).await;
    let began = Instant::now();
    cluster.add("app:1");
    cluster.reporter.ensure(&Cluster::image("app:1")).await;
    assert!(cluster.is_known() && began.elapsed() < Duration::from_millis(10), "it is sent at once");
    cluster.reporter.ensure(&Cluster::image("app:1")).await;
    assert_eq!(cluster.cache.requests().0, 2);
    cluster.reporter.ensure(&Cluster::image("other:1")).await;
    assert!(began.elapsed() >= Timing::default().ensure);
}
