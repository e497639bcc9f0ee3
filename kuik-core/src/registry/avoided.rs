//! Which upstream sent something else than a digest names, or broke off in the middle of it: it is asked last for that
//! content, for a while.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use lru::LruCache;
use tokio::time::Instant;

use crate::content::{Blob, Digest, Served};

/// For how long.
const TIME: Duration = Duration::from_secs(60);
/// How much is remembered.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// What is asked of whom last.
#[derive(Debug)]
pub(super) struct Avoided {
    until: Mutex<LruCache<(Box<str>, Digest), Instant>>,
    /// Whose bytes were handed out last, by digest.
    sent: Mutex<LruCache<Digest, Box<str>>>,
}

impl Default for Avoided {
    fn default() -> Self {
        Self {
            until: Mutex::new(LruCache::new(MAX_REMEMBERED)),
            sent: Mutex::new(LruCache::new(MAX_REMEMBERED)),
        }
    }
}

impl Avoided {
    pub(super) fn add(&self, base: &str, digest: &Digest, now: Instant) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.put((base.into(), digest.clone()), now + TIME);
    }

    pub(super) fn contains(&self, base: &str, digest: &Digest, now: Instant) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        !until.is_empty() && until.get(&(base.into(), digest.clone())).is_some_and(|until| *until > now)
    }

    /// Whoever sent these bytes last sent other bytes than the digest names; unless somebody else sent a part of them and
    /// broke off: then that is the one that is avoided already.
    pub(super) fn distrust(&self, digest: &Digest) {
        let now = Instant::now();
        {
            let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
            if until.iter().any(|((_, avoided), until)| avoided == digest && *until > now) {
                return;
            }
        }
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner).pop(digest);
        if let Some(base) = sent {
            self.add(&base, digest, now);
        }
    }

    /// The blob, as `base` sends it; where it breaks off, another is asked first for the rest.
    pub(super) fn watch(self: &Arc<Self>, base: &str, digest: &Digest, served: Served<Blob>) -> Served<Blob> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).put(digest.clone(), base.into());
        let (avoided, base, digest) = (self.clone(), Box::<str>::from(base), digest.clone());
        served.map(|blob| {
            let body = blob.body.inspect(move |chunk| {
                if chunk.is_err() {
                    avoided.add(&base, &digest, Instant::now());
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
    async fn who_broke_off_or_lied_is_avoided_for_a_while() {
        let avoided = Arc::new(Avoided::default());
        let digest = Digest::sha256(b"x");
        let broken: Vec<Result<bytes::Bytes, _>> =
            vec![Ok("x".into()), Err(SourceError::new(SourceErrorKind::Unavailable, "broken"))];
        let blob = Blob { size: None, range: None, body: futures::stream::iter(broken).boxed() };
        let watched = avoided.watch("https://one", &digest, Served::from_upstream(blob));
        let is_avoided = |base: &str| avoided.contains(base, &digest, Instant::now());
        assert!(!is_avoided("https://one"));
        assert_eq!(watched.content.body.count().await, 2);
        assert!(is_avoided("https://one") && !is_avoided("https://two"));
        tokio::time::advance(TIME).await;
        assert!(!is_avoided("https://one"));
        avoided.distrust(&digest);
        assert!(is_avoided("https://one"));
        // Of what two have sent together, the one is to blame that broke off.
        let rest = Blob { size: None, range: None, body: futures::stream::empty().boxed() };
        drop(avoided.watch("https://two", &digest, Served::from_upstream(rest)));
        avoided.distrust(&digest);
        assert!(is_avoided("https://one") && !is_avoided("https://two"));
    }
}
