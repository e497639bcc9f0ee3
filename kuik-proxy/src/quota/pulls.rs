//! When an image was last pulled: to the minute, in memory at first, and in notes after a while.
//!
//! A hit costs a look into a table. Every few minutes what is new goes into one note for each repository, which keeps
//! the later of two times: so several processes on one store may write the same note, and what a race loses is a
//! pull that looks a few minutes older than it was.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use kuik_core::{
    content::{Digest, ManagedStore, NoteName, SourceError, SourceErrorKind},
    reference::RepositoryName,
};

/// How coarse the times are, in seconds.
const MINUTE: u64 = 60;

/// At most so many manifests are remembered between two flushes. Others look as if they were pulled when they were
/// last written.
const REMEMBERED: usize = 100_000;

/// At most so many manifests are in the note of one repository: those that were pulled last.
const NOTED: usize = 5_000;

/// The name of a repository's note.
const NOTE: &str = "pulls";

/// Minutes since the Unix epoch, by digest.
pub(super) type LastPulls = HashMap<Digest, u64>;

/// The pulls that no note knows of yet.
#[derive(Debug, Default)]
pub struct Pulls(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    count: usize,
    repositories: HashMap<RepositoryName, LastPulls>,
}

impl Pulls {
    /// Remembers that a manifest was pulled at `now`.
    pub fn record(&self, repository: &RepositoryName, digest: &Digest, now: SystemTime) {
        let minute = minute(now);
        let mut recent = self.recent();
        if let Some(last) = recent.repositories.get_mut(repository).and_then(|pulls| pulls.get_mut(digest)) {
            *last = minute;
        } else if recent.count < REMEMBERED {
            recent.count += 1;
            recent.repositories.entry(repository.clone()).or_default().insert(digest.clone(), minute);
        }
    }

    /// Writes what is remembered into notes. What could not be written is remembered still.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub async fn flush(&self, store: &dyn ManagedStore) -> Result<(), SourceError> {
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

    /// Remembers a pull, unless a later one is known.
    fn record_older(&self, repository: &RepositoryName, digest: &Digest, at: SystemTime) {
        let known =
            self.recent().repositories.get(repository).is_some_and(|pulls| pulls.contains_key(digest));
        if !known {
            self.record(repository, digest, at);
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the note of a repository says; nothing where there is none, or a damaged one.
pub(super) async fn noted(
    store: &dyn ManagedStore,
    repository: &RepositoryName,
) -> Result<LastPulls, SourceError> {
    let note = store.note(repository, &note_name()?).await?;
    Ok(note.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
}

/// A time that a note has.
pub(super) fn time(minute: u64) -> SystemTime {
    let since = Duration::from_secs(minute.saturating_mul(MINUTE));
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

async fn merge(
    store: &dyn ManagedStore,
    repository: &RepositoryName,
    recent: LastPulls,
) -> Result<(), SourceError> {
    let mut pulls = noted(store, repository).await?;
    for (digest, minute) in recent {
        let last = pulls.entry(digest).or_default();
        *last = minute.max(*last);
    }
    let text = newest(pulls, NOTED);
    store.put_note(repository, &note_name()?, Some(text)).await
}

/// The note that has the `at_most` newest of `pulls`.
fn newest(pulls: LastPulls, at_most: usize) -> Bytes {
    let mut sorted: Vec<_> = pulls.into_iter().collect();
    sorted.sort_unstable_by(|(digest, minute), (other, than)| than.cmp(minute).then(digest.cmp(other)));
    sorted.truncate(at_most);
    let text: serde_json::Map<_, _> =
        sorted.into_iter().map(|(digest, minute)| (digest.to_string(), minute.into())).collect();
    serde_json::to_vec(&text).unwrap_or_default().into()
}

fn note_name() -> Result<NoteName, SourceError> {
    NOTE.parse().map_err(|error| SourceError::caused_by(SourceErrorKind::Unsupported, "name a note", error))
}

fn minute(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / MINUTE
}

#[cfg(test)]
mod tests {
    use kuik_core::testkit::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn pulls_are_noted_and_the_later_one_counts() {
        let store = MemoryStore::new();
        let app = RepositoryName::local("app").unwrap();
        let [old, new] = [b"old", b"new"].map(|text| Digest::sha256(text));
        let (pulls, others) = (Pulls::default(), Pulls::default());
        pulls.record(&app, &old, time(10));
        pulls.record(&app, &new, time(10));
        pulls.record(&app, &new, time(12) + Duration::from_secs(59));
        assert!(noted(&store, &app).await.unwrap().is_empty(), "a pull writes nothing");
        pulls.flush(&store).await.unwrap();
        others.record(&app, &new, time(11));
        others.record(&app, &old, time(11));
        others.flush(&store).await.unwrap();
        let expected = HashMap::from([(old, 11), (new, 12)]);
        assert_eq!(noted(&store, &app).await.unwrap(), expected);
        pulls.flush(&store).await.unwrap();
        assert_eq!(noted(&store, &app).await.unwrap(), expected);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (pulls, app) = (Pulls::default(), RepositoryName::local("app").unwrap());
        for number in 0..REMEMBERED + 10 {
            pulls.record(&app, &Digest::sha256(&number.to_be_bytes()), time(1));
        }
        assert_eq!(pulls.recent().repositories[&app].len(), REMEMBERED);
        let many = (0..10_u64).map(|number| (Digest::sha256(&number.to_be_bytes()), number)).collect();
        let noted: LastPulls = serde_json::from_slice(&newest(many, 3)).unwrap();
        let mut minutes: Vec<_> = noted.into_values().collect();
        minutes.sort_unstable();
        assert_eq!(minutes, [7, 8, 9]);
    }
}
