//! Upstreams that sent corrupt content for a digest, or aborted it: they are tried last for that digest, for a while.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use futures::StreamExt as _;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::content::{Blob, Cached, Digest};

/// How long an upstream is tried last.
const AVOIDED_FOR: Duration = Duration::from_secs(60);
/// The maximum number of entries.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The upstreams to try last, by digest.
#[derive(Debug)]
pub(crate) struct CorruptSources {
    until: Mutex<LruCache<(Box<str>, Digest), Instant>>,
    /// The upstream that sent the bytes of a digest last.
    sent: Mutex<LruCache<Digest, Box<str>>>,
}

impl Default for CorruptSources {
    fn default() -> Self {
        Self {
            until: Mutex::new(LruCache::new(MAX_REMEMBERED)),
            sent: Mutex::new(LruCache::new(MAX_REMEMBERED)),
        }
    }
}

impl CorruptSources {
    pub(crate) fn add(&self, base: &str, digest: &Digest, now: Instant) {
        let mut until = self.until.lock();
        until.put((base.into(), digest.clone()), now + AVOIDED_FOR);
    }

    pub(crate) fn contains(&self, base: &str, digest: &Digest, now: Instant) -> bool {
        let mut until = self.until.lock();
        !until.is_empty() && until.get(&(base.into(), digest.clone())).is_some_and(|until| *until > now)
    }

    /// Marks the upstream that sent these bytes last as corrupt; unless another one that sent a part of them is already
    /// marked because it aborted: then that one is to blame.
    pub(crate) fn report_corrupt(&self, digest: &Digest) {
        let now = Instant::now();
        {
            let until = self.until.lock();
            if until.iter().any(|((_, corrupt), until)| corrupt == digest && *until > now) {
                return;
            }
        }
        let sent = self.sent.lock().pop(digest);
        if let Some(base) = sent {
            self.add(&base, digest, now);
        }
    }

    /// Watches the blob that `base` sends: if it aborts, another upstream is tried first for the rest.
    pub(crate) fn watch(self: &Arc<Self>, base: &str, digest: &Digest, served: Cached<Blob>) -> Cached<Blob> {
        self.sent.lock().put(digest.clone(), base.into());
        let (corrupt, base, digest) = (self.clone(), Box::<str>::from(base), digest.clone());
        served.map(|blob| {
            let body = blob.body.inspect(move |chunk| {
                if chunk.is_err() {
                    corrupt.add(&base, &digest, Instant::now());
                }
            });
            Blob { body: body.boxed(), ..blob }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{SourceError, SourceErrorKind};

    #[tokio::test(start_paused = true)]
    async fn upstream_is_avoided_for_a_while_after_abort_or_corruption() {
        let corrupt = Arc::new(CorruptSources::default());
        let digest = Digest::sha256(b"x");
        let broken: Vec<Result<bytes::Bytes, _>> =
            vec![Ok("x".into()), Err(SourceError::new(SourceErrorKind::Unavailable, "broken"))];
        let blob = Blob { size: None, range: None, body: futures::stream::iter(broken).boxed() };
        let watched = corrupt.watch("https://one", &digest, Cached::from_upstream(blob));
        let is_avoided = |base: &str| corrupt.contains(base, &digest, Instant::now());
        assert!(!is_avoided("https://one"));
        assert_eq!(watched.content.body.count().await, 2);
        assert!(is_avoided("https://one") && !is_avoided("https://two"));
        tokio::time::advance(AVOIDED_FOR).await;
        assert!(!is_avoided("https://one"));
        corrupt.report_corrupt(&digest);
        assert!(is_avoided("https://one"));
        // If two upstreams sent parts of the blob, the one that aborted is to blame.
        let rest = Blob { size: None, range: None, body: futures::stream::empty().boxed() };
        drop(corrupt.watch("https://two", &digest, Cached::from_upstream(rest)));
        corrupt.report_corrupt(&digest);
        assert!(is_avoided("https://one") && !is_avoided("https://two"));
    }
}
