//! Last pull of each image, to the minute: recorded in memory and flushed to repository metadata.
//!
//! A pull costs one table lookup. Every few minutes new pulls are merged into one metadata entry for each repository,
//! which keeps the later of two times. So several processes on one store may write the same entry; a lost race makes
//! a pull look a few minutes older than it was.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use kuik_core::{
    content::{Digest, MetadataName, RegistryStore, SourceError, SourceErrorKind},
    reference::RepositoryName,
};
use parking_lot::{Mutex, MutexGuard};

/// Resolution of the times, in seconds.
const MINUTE: u64 = 60;

/// Maximum number of manifests recorded between two flushes. Others appear as pulled when they were last written.
const RECORDED: usize = 100_000;

/// Maximum number of manifests in the entry of one repository: the most recently pulled.
const STORED: usize = 5_000;

/// Name of the metadata entry.
const METADATA_NAME: &str = "pulls";

/// Minutes since the Unix epoch, by digest.
pub(super) type LastPulls = HashMap<Digest, u64>;

/// Pulls that are not flushed yet.
#[derive(Debug, Default)]
pub struct Pulls(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    count: usize,
    repositories: HashMap<RepositoryName, LastPulls>,
}

impl Pulls {
    /// Records a pull of a manifest at `now`.
    pub fn record(&self, repository: &RepositoryName, digest: &Digest, now: SystemTime) {
        let minute = minute(now);
        let mut recent = self.recent();
        if let Some(last) = recent.repositories.get_mut(repository).and_then(|pulls| pulls.get_mut(digest)) {
            *last = minute;
        } else if recent.count < RECORDED {
            recent.count += 1;
            recent.repositories.entry(repository.clone()).or_default().insert(digest.clone(), minute);
        }
    }

    /// Returns whether a pull of one of these manifests is recorded, and not flushed yet.
    pub(super) fn has_any(&self, repository: &RepositoryName, digests: &[Digest]) -> bool {
        let recent = self.recent();
        let pulls = recent.repositories.get(repository);
        pulls.is_some_and(|pulls| digests.iter().any(|digest| pulls.contains_key(digest)))
    }

    /// Flushes recorded pulls to repository metadata. Pulls that could not be written stay recorded.
    ///
    /// # Errors
    /// Fails if the store cannot be written.
    pub async fn flush(&self, store: &dyn RegistryStore) -> Result<(), SourceError> {
        let mut repositories = std::mem::take(&mut *self.recent()).repositories;
        let mut outcome = Ok(());
        while let Some(repository) = repositories.keys().next().cloned() {
            let recent = repositories.get(&repository).cloned().unwrap_or_default();
            outcome = merge(store, &repository, recent).await;
            if outcome.is_err() {
                break;
            }
            repositories.remove(&repository);
        }
        for (repository, pulls) in repositories {
            for (digest, minute) in pulls {
                let at = SystemTime::UNIX_EPOCH + Duration::from_secs(minute * MINUTE);
                self.record_older(&repository, &digest, at);
            }
        }
        outcome
    }

    /// Records a pull, unless a later one is recorded.
    fn record_older(&self, repository: &RepositoryName, digest: &Digest, at: SystemTime) {
        let known =
            self.recent().repositories.get(repository).is_some_and(|pulls| pulls.contains_key(digest));
        if !known {
            self.record(repository, digest, at);
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.lock()
    }
}

/// Returns the stored pulls of a repository; empty if there is no entry or a damaged one.
pub(super) async fn stored(
    store: &dyn RegistryStore,
    repository: &RepositoryName,
) -> Result<LastPulls, SourceError> {
    let note = store.metadata(repository, &metadata_name()?).await?;
    Ok(note.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
}

/// Returns the time of a stored minute.
pub(super) fn time(minute: u64) -> SystemTime {
    let since = Duration::from_secs(minute.saturating_mul(MINUTE));
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

async fn merge(
    store: &dyn RegistryStore,
    repository: &RepositoryName,
    recent: LastPulls,
) -> Result<(), SourceError> {
    let mut pulls = stored(store, repository).await?;
    for (digest, minute) in recent {
        let last = pulls.entry(digest).or_default();
        *last = minute.max(*last);
    }
    let text = newest(pulls, STORED);
    store.put_metadata(repository, &metadata_name()?, Some(text)).await
}

/// Returns the entry with the `at_most` newest of `pulls`.
fn newest(pulls: LastPulls, at_most: usize) -> Bytes {
    let mut sorted: Vec<_> = pulls.into_iter().collect();
    sorted.sort_unstable_by(|(digest, minute), (other, than)| than.cmp(minute).then(digest.cmp(other)));
    sorted.truncate(at_most);
    let text: serde_json::Map<_, _> =
        sorted.into_iter().map(|(digest, minute)| (digest.to_string(), minute.into())).collect();
    serde_json::to_vec(&text).unwrap_or_default().into()
}

fn metadata_name() -> Result<MetadataName, SourceError> {
    METADATA_NAME
        .parse()
        .map_err(|error| SourceError::caused_by(SourceErrorKind::Unsupported, "name a metadata entry", error))
}

fn minute(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / MINUTE
}

#[cfg(test)]
mod tests {
    use kuik_testkit::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn flush_merges_pulls_and_keeps_the_later_time() {
        let store = MemoryStore::new();
        let app = RepositoryName::local("app").unwrap();
        let [old, new] = [b"old", b"new"].map(|text| Digest::sha256(text));
        let (pulls, others) = (Pulls::default(), Pulls::default());
        pulls.record(&app, &old, time(10));
        pulls.record(&app, &new, time(10));
        pulls.record(&app, &new, time(12) + Duration::from_secs(59));
        assert!(stored(&store, &app).await.unwrap().is_empty(), "a pull writes nothing");
        pulls.flush(&store).await.unwrap();
        others.record(&app, &new, time(11));
        others.record(&app, &old, time(11));
        others.flush(&store).await.unwrap();
        let expected = HashMap::from([(old, 11), (new, 12)]);
        assert_eq!(stored(&store, &app).await.unwrap(), expected);
        pulls.flush(&store).await.unwrap();
        assert_eq!(stored(&store, &app).await.unwrap(), expected);
    }

    #[test]
    fn recorded_pulls_are_bounded() {
        let (pulls, app) = (Pulls::default(), RepositoryName::local("app").unwrap());
        for number in 0..RECORDED + 10 {
            pulls.record(&app, &Digest::sha256(&number.to_be_bytes()), time(1));
        }
        assert_eq!(pulls.recent().repositories[&app].len(), RECORDED);
        let many = (0..10_u64).map(|number| (Digest::sha256(&number.to_be_bytes()), number)).collect();
        let stored: LastPulls = serde_json::from_slice(&newest(many, 3)).unwrap();
        let mut minutes: Vec<_> = stored.into_values().collect();
        minutes.sort_unstable();
        assert_eq!(minutes, [7, 8, 9]);
    }
}
