//! What is fetched slowly and used for a while: one fetch for all who want it, and a failure that is not repeated at
//! once.

use std::{
    fmt,
    hash::Hash,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

use super::CredentialError;

/// How many values are kept.
const MAX_VALUES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// For how long a failure is the answer.
const FAILURE: Duration = Duration::from_secs(15);
/// The longest life that is believed.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Values by key, each for as long as it lives.
pub(super) struct Expiring<K, V> {
    slots: Mutex<LruCache<K, Arc<Slot<V>>>>,
}

/// The lock is held while a value is fetched, so that all who want it wait for one fetch.
type Slot<V> = tokio::sync::Mutex<Option<(Result<V, CredentialError>, Instant)>>;

impl<K: Hash + Eq, V: Clone> Expiring<K, V> {
    /// The value of `key`, fetched where there is none that lives. A fetch says for how long its value may be used.
    pub(super) async fn get(
        &self,
        key: K,
        fetch: impl Future<Output = Result<(V, Duration), CredentialError>>,
    ) -> Result<V, CredentialError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Says nothing of what it keeps.
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
    async fn one_fetch_for_all_while_it_lives() {
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
    async fn a_failure_is_the_answer_for_a_while() {
        let expiring: Expiring<(), u8> = Expiring::default();
        let failing = async { Err(CredentialError::new("away", None)) };
        assert!(expiring.get((), failing).await.is_err());
        let well = || async { Ok((1, Duration::ZERO)) };
        assert_eq!(expiring.get((), well()).await.unwrap_err().to_string(), "away");
        tokio::time::advance(FAILURE).await;
        assert_eq!(expiring.get((), well()).await.unwrap(), 1);
    }
}
