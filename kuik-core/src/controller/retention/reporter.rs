//! Reporter: sends the retention document when it changes, verifies it at intervals, and renews it.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::document;
use crate::{
    client::{RegistryClient, RetentionError},
    controller::{Informer, Usage},
    copy::SourceImage,
    crd::CachedImage,
    retention::{ClusterId, RetentionDocument, etag},
};

/// Receiver of retention documents: a cache.
#[async_trait]
pub trait RetentionSink: fmt::Debug + Send + Sync + 'static {
    /// Replaces and renews the document of `cluster`.
    async fn put(&self, cluster: &ClusterId, document: Bytes) -> Result<(), RetentionError>;

    /// Returns the `ETag` of the document of `cluster`; `None` if there is none.
    async fn etag(&self, cluster: &ClusterId) -> Result<Option<String>, RetentionError>;
}

/// A kuik registry.
#[async_trait]
impl RetentionSink for RegistryClient {
    async fn put(&self, cluster: &ClusterId, document: Bytes) -> Result<(), RetentionError> {
        self.put_retention(cluster, document).await
    }

    async fn etag(&self, cluster: &ClusterId) -> Result<Option<String>, RetentionError> {
        self.retention_etag(cluster).await
    }
}

/// Intervals and delays of a [`RetentionReporter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// Changes within this time are sent together. 2 s.
    pub debounce: Duration,
    /// Interval of checks that the cache still has the document. 50 s.
    pub verify: Duration,
    /// Interval of renewals while nothing changes. One day.
    pub renew: Duration,
    /// Delay before the next attempt after a failure: doubled after each, up to the maximum. 1 s and 1 min.
    pub retry: (Duration, Duration),
    /// How long a copy waits for its image to be reported. 10 s.
    pub ensure: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            debounce: Duration::from_secs(2),
            verify: Duration::from_secs(50),
            renew: Duration::from_secs(24 * 3600),
            retry: (Duration::from_secs(1), Duration::from_secs(60)),
            ensure: Duration::from_secs(10),
        }
    }
}

/// Tells a cache which images the cluster uses. Cheap to clone; clones share state.
#[derive(Debug, Clone)]
pub struct RetentionReporter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Arc<dyn RetentionSink>,
    cluster: ClusterId,
    timing: Timing,
    reported: watch::Sender<Reported>,
    /// A copy waits for its image to be reported.
    wanted: Notify,
}

/// Knowledge of the cache.
#[derive(Debug, Default)]
enum Reported {
    #[default]
    Nothing,
    Document(RetentionDocument),
    /// The last attempt to report failed, and is retried.
    Failing,
    /// The cache does not support documents.
    Unsupported,
}

/// A document that the cache has acknowledged.
struct Acknowledged {
    etag: String,
    renewed_at: Instant,
    verified_at: Instant,
}

impl RetentionReporter {
    /// Creates a reporter for `cluster`.
    #[must_use]
    pub fn new(cache: Arc<dyn RetentionSink>, cluster: ClusterId, timing: Timing) -> Self {
        let (reported, wanted) = (watch::Sender::default(), Notify::new());
        Self(Arc::new(Inner { cache, cluster, timing, reported, wanted }))
    }

    /// Waits until the cache knows that the cluster uses `image`. Gives up after a while: then the image may be evicted
    /// before it is reported.
    pub async fn ensure(&self, image: &SourceImage) {
        let Ok(repository) = image.repository().encoded() else { return };
        let names = document::names(image);
        let is_reported = |reported: &Reported| match reported {
            Reported::Nothing => false,
            Reported::Document(document) => {
                names.iter().all(|name| document.get(&repository, name.as_str()).is_some())
            }
            // Copies are not delayed by a cache that does not accept documents.
            Reported::Failing | Reported::Unsupported => true,
        };
        let mut reported = self.0.reported.subscribe();
        if is_reported(&reported.borrow_and_update()) {
            return;
        }
        self.0.wanted.notify_one();
        if timeout(self.0.timing.ensure, reported.wait_for(is_reported)).await.is_err() {
            tracing::debug!(%image, "copying an image before it is reported to the cache");
        }
    }

    /// Reports these images forever. Sends nothing until the images and their usage are known.
    pub async fn run(&self, images: Informer<CachedImage>, usage: Arc<dyn Usage>) {
        let changes = stream::select(images.changes().map(drop), usage.changes().map(drop));
        let images = images.store();
        if images.wait_until_ready().await.is_err() {
            return;
        }
        self.run_with(changes, || document::build(&images, &*usage)).await;
    }

    /// Reports the document that `build` returns, after each of `changes`.
    async fn run_with(
        &self,
        changes: impl Stream<Item = ()> + Send,
        build: impl Fn() -> Option<RetentionDocument> + Send + Sync,
    ) {
        let timing = self.0.timing;
        let mut changes = std::pin::pin!(changes.fuse());
        // Another replica may have been the leader before.
        self.0.reported.send_replace(Reported::Nothing);
        let (mut acknowledged, mut failures) = (None, 0);
        loop {
            let due = match build() {
                Some(document) => match self.report(&mut acknowledged, document).await {
                    Ok(due) => {
                        failures = 0;
                        due
                    }
                    Err(error) => {
                        acknowledged = None;
                        let wait = self.failed(&error, failures);
                        failures = failures.saturating_add(1);
                        // Changes do not end the delay.
                        absorb(&mut changes, sleep(wait)).await;
                        continue;
                    }
                },
                None => Instant::now() + timing.verify,
            };
            let changed = tokio::select! {
                Some(()) = changes.next() => true,
                () = self.0.wanted.notified() => false,
                () = sleep_until(due) => false,
            };
            if changed {
                let enough = async {
                    // A copy that waits for its image ends the delay.
                    let _ = timeout(timing.debounce, self.0.wanted.notified()).await;
                };
                absorb(&mut changes, enough).await;
            }
        }
    }

    /// Sends the document if the cache does not have it or if it is to be renewed; returns when to do that again.
    async fn report(
        &self,
        acknowledged: &mut Option<Acknowledged>,
        document: RetentionDocument,
    ) -> Result<Instant, RetentionError> {
        let Inner { cache, cluster, timing, reported, .. } = &*self.0;
        let text = document.to_json();
        let etag = etag(&text);
        let now = Instant::now();
        let known = acknowledged.as_mut().filter(|known| known.etag == etag);
        if let Some(known) = known
            && now < known.renewed_at + timing.renew
        {
            if now < known.verified_at + timing.verify {
                return Ok((known.verified_at + timing.verify).min(known.renewed_at + timing.renew));
            }
            if cache.etag(cluster).await?.as_ref() == Some(&etag) {
                known.verified_at = now;
                return Ok((now + timing.verify).min(known.renewed_at + timing.renew));
            }
            tracing::warn!(%cluster, "the cache has lost the retention document, sending it again");
        }
        cache.put(cluster, text).await?;
        tracing::debug!(%cluster, images = document.len(), "reported the images of the cluster to the cache");
        reported.send_replace(Reported::Document(document));
        let now = Instant::now();
        *acknowledged = Some(Acknowledged { etag, renewed_at: now, verified_at: now });
        Ok(now + timing.verify.min(timing.renew))
    }

    /// Records a failure after `failures` others; returns the delay before the next attempt.
    fn failed(&self, error: &RetentionError, failures: u32) -> Duration {
        let Timing { renew, retry: (first, most), .. } = self.0.timing;
        if matches!(error, RetentionError::Unsupported) {
            let before = self.0.reported.send_replace(Reported::Unsupported);
            if !matches!(before, Reported::Unsupported) {
                tracing::warn!("the cache does not support retention documents: it may evict images in use");
            }
            // It may be replaced by a version that does.
            return renew;
        }
        self.0.reported.send_replace(Reported::Failing);
        let wait = first.saturating_mul(2_u32.saturating_pow(failures)).min(most);
        let error = error.chain();
        tracing::warn!(error, retry_after = ?wait, "cannot report the images of the cluster to the cache, retrying");
        wait
    }
}

/// Takes and drops `changes` until `end` resolves.
async fn absorb(changes: &mut (impl Stream<Item = ()> + Unpin), end: impl Future<Output = ()>) {
    let mut end = std::pin::pin!(end);
    loop {
        tokio::select! {
            Some(()) = changes.next() => {}
            () = &mut end => return,
        }
    }
}

#[cfg(test)]
#[path = "reporter_tests.rs"]
mod tests;
