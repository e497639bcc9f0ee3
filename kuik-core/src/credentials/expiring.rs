//! Expiring cache with single-flight fetches and negative caching.

use std::{fmt, hash::Hash, num::NonZeroUsize, sync::Arc, time::Duration};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::CredentialError;

/// The maximum number of cached values.
const MAX_VALUES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// How long a failure is cached.
const FAILURE: Duration = Duration::from_secs(15);
/// The longest lifetime that is accepted.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Values by key, each with its own lifetime.
pub(super) struct Expiring<K, V> {
    slots: Mutex<LruCache<K, Arc<Slot<V>>>>,
}

/// The lock is held during the fetch, so that concurrent callers wait for one fetch.
type Slot<V> = tokio::sync::Mutex<Option<(Result<V, CredentialError>, Instant)>>;

impl<K: Hash + Eq, V: Clone> Expiring<K, V> {
    /// Returns the value of `key`; fetches it if it is missing or expired. The fetch returns the lifetime of its value.
    pub(super) async fn get(
        &self,
        key: K,
        fetch: impl Future<Output = Result<(V, Duration), CredentialError>>,
    ) -> Result<V, CredentialError> {
        let slot = {
            let mut slots = self.slots.lock();
            Arc::clone(slots.get_or_insert(key, Arc::default))
        };
        let mut kept = slot.lock().await;
        if let Some((value, until)) = kept.as_ref()
            && *until > Instant::now()
        {
            return value.clone();
        }
        let (value, life) = match fetch.await {
            Ok((value, life)) => (Ok(value), life.min(MAX_LIFE)),
            Err(error) => (Err(error), FAILURE),
        };
        *kept = Some((value.clone(), Instant::now() + life));
        value
    }
}

impl<K: Hash + Eq, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self { slots: Mutex::new(LruCache::new(MAX_VALUES)) }
    }
}

/// Prints no values.
impl<K, V> fmt::Debug for Expiring<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expiring")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn concurrent_gets_share_one_fetch_until_expiry() {
        let (expiring, fetched) = (Expiring::default(), AtomicUsize::new(0));
        let get = async |key| {
            let fetch = async {
                tokio::task::yield_now().await;
                Ok((fetched.fetch_add(1, Ordering::SeqCst), Duration::from_secs(60)))
            };
            expiring.get(key, fetch).await.unwrap()
        };
        assert_eq!(futures::join!(get("a"), get("a"), get("a")), (0, 0, 0));
        assert_eq!(get("b").await, 1);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(get("a").await, 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(get("a").await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_cached_for_a_while() {
        let expiring: Expiring<(), u8> = Expiring::default();
        let failing = async { Err(CredentialError::new("away", None)) };
        assert!(expiring.get((), failing).await.is_err());
        let well = || async { Ok((1, Duration::ZERO)) };
        assert_eq!(expiring.get((), well()).await.unwrap_err().to_string(), "away");
        tokio::time::advance(FAILURE).await;
        assert_eq!(expiring.get((), well()).await.unwrap(), 1);
    }
}
