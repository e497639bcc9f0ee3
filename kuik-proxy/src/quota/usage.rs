//! How much is kept, and whether more may be.
//!
//! Invariant: what is kept and what is being written are together at most the limit, as far as this process knows. A
//! writer takes room for bytes before it writes them; where there is none, it asks for eviction and waits a little. Of
//! two who publish the same bytes at once both may be counted, until everything is counted again.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kuik_core::{
    content::{Digest, SourceError, UploadId},
    reference::RepositoryName,
};
use tokio::{
    sync::{Notify, RwLock, RwLockReadGuard, RwLockWriteGuard, watch},
    time::Instant,
};

use super::{QuotaMetrics, tally::Tally};
use crate::gc::Key;

/// How long a writer waits for eviction.
const PATIENCE: Duration = Duration::from_secs(10);

/// At most so many fetched blobs are known as such; others are as old as they are.
const FETCHED: usize = 50_000;

/// How much a store keeps, and may keep. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Usage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: Option<u64>,
    state: Mutex<State>,
    wanted: Notify,
    rounds: watch::Sender<u64>,
    /// Whoever looks at an upload has it for a moment, and no client may be turned away because of that.
    opening: RwLock<()>,
    metrics: QuotaMetrics,
}

#[derive(Debug, Default)]
struct State {
    /// What is kept.
    used: u64,
    /// What is new and is being published at this moment: a count may see it already.
    arriving: HashMap<Key, u32>,
    /// The count that goes on.
    tally: Option<Tally>,
    /// What is being written, uploads included.
    writing: u64,
    /// What uploads hold of that, until they end: those that are known to hold anything.
    uploads: HashMap<UploadId, (RepositoryName, u64)>,
    /// What can be fetched again, and may have come without what refers to it.
    fetched: HashSet<Key>,
    /// The most that was asked for in vain since the last round of eviction.
    asked: u64,
    /// Whether somebody evicts.
    attended: bool,
    rests_until: Option<Instant>,
}

/// Bytes that are being published. Dropping it says that this is over, however it ended.
#[derive(Debug)]
pub(super) struct Arrival {
    usage: Usage,
    key: Key,
    size: u64,
    before: Option<u64>,
}

/// Room that a writer has taken. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Room {
    usage: Usage,
    bytes: u64,
}

impl Usage {
    /// Nothing is kept yet, as far as anybody knows. Without a `limit` there is always room.
    #[must_use]
    pub fn new(limit: Option<u64>, metrics: QuotaMetrics) -> Self {
        metrics.limit.set(limit.unwrap_or(0));
        let (state, wanted) = (Mutex::default(), Notify::default());
        let (rounds, opening) = (watch::Sender::new(0), RwLock::default());
        Self(Arc::new(Inner { limit, state, wanted, rounds, opening, metrics }))
    }

    /// How many bytes are kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state().used
    }

    /// Room for nothing, to be extended.
    pub(super) fn room(&self) -> Room {
        Room { usage: self.clone(), bytes: 0 }
    }

    /// Takes room for `bytes` more; waits for eviction where there is none.
    async fn take(&self, bytes: u64) -> Result<(), SourceError> {
        if self.try_take(bytes) {
            return Ok(());
        }
        let evicted = tokio::time::timeout(PATIENCE, async {
            let mut rounds = self.0.rounds.subscribe();
            // The round that is going on may have begun before space was short.
            for _ in 0..2 {
                if self.try_take(bytes) {
                    return true;
                }
                if !self.ask(bytes) || rounds.changed().await.is_err() {
                    return false;
                }
            }
            self.try_take(bytes)
        });
        if evicted.await.unwrap_or(false) {
            return Ok(());
        }
        self.0.metrics.refused.inc();
        let limit = self.0.limit.unwrap_or(u64::MAX);
        let attempted =
            format!("keep {bytes} bytes more: the store may have {limit}, and nothing else may go now");
        Err(SourceError::storage(attempted, io::ErrorKind::QuotaExceeded.into()))
    }

    fn try_take(&self, bytes: u64) -> bool {
        let mut state = self.state();
        let limit = self.0.limit.unwrap_or(u64::MAX);
        let fits = state.used.saturating_add(state.writing).saturating_add(bytes) <= limit;
        if fits {
            state.writing += bytes;
        } else {
            state.asked = state.asked.max(bytes);
        }
        fits
    }

    /// Asks for eviction; false where that is in vain.
    fn ask(&self, bytes: u64) -> bool {
        let state = self.state();
        let in_vain = !state.attended
            || self.0.limit.is_some_and(|limit| bytes > limit)
            || state.rests_until.is_some_and(|until| Instant::now() < until);
        if !in_vain {
            self.0.wanted.notify_one();
        }
        !in_vain
    }

    fn give_back(&self, bytes: u64) {
        let mut state = self.state();
        state.writing = state.writing.saturating_sub(bytes);
    }

    /// Takes room for more bytes of an upload, which keeps it until the upload ends.
    pub(super) async fn extend_upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
        bytes: u64,
    ) -> Result<(), SourceError> {
        self.take(bytes).await?;
        let mut state = self.state();
        let (_, taken) = state.uploads.entry(id.clone()).or_insert_with(|| (repository.clone(), 0));
        *taken += bytes;
        Ok(())
    }

    /// Bytes that an upload took room for were not kept.
    pub(super) fn shrink_upload(&self, id: &UploadId, bytes: u64) {
        let mut state = self.state();
        if let Some((_, taken)) = state.uploads.get_mut(id) {
            let back = bytes.min(*taken);
            *taken -= back;
            state.writing = state.writing.saturating_sub(back);
        }
    }

    /// An upload holds so many bytes, whatever was known of it: it may be older than this process. They are there, so
    /// there is no asking for room.
    pub(super) fn upload_holds(&self, repository: &RepositoryName, id: &UploadId, bytes: u64) {
        let mut state = self.state();
        let before = state.uploads.remove(id).map_or(0, |(_, taken)| taken);
        state.writing = state.writing.saturating_sub(before).saturating_add(bytes);
        if bytes > 0 {
            state.uploads.insert(id.clone(), (repository.clone(), bytes));
        }
    }

    /// This repository has no such upload. Where another one has it, it holds what it did.
    pub(super) fn upload_is_absent(&self, repository: &RepositoryName, id: &UploadId) {
        let mut state = self.state();
        let known = state.uploads.get(id).is_some_and(|(at, _)| at == repository);
        if known && let Some((_, bytes)) = state.uploads.remove(id) {
            state.writing = state.writing.saturating_sub(bytes);
        }
    }

    /// The uploads that hold room.
    pub(super) fn uploads(&self) -> Vec<(RepositoryName, UploadId)> {
        self.state().uploads.iter().map(|(id, (repository, _))| (repository.clone(), id.clone())).collect()
    }

    /// Held while an upload is opened for a client.
    pub(super) async fn opening(&self) -> RwLockReadGuard<'_, ()> {
        self.0.opening.read().await
    }

    /// Held while an upload is opened only to look at it.
    pub(super) async fn looking(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.opening.write().await
    }

    /// An upload has ended, however.
    pub(super) fn end_upload(&self, id: &UploadId) {
        let mut state = self.state();
        if let Some((_, bytes)) = state.uploads.remove(id) {
            state.writing = state.writing.saturating_sub(bytes);
        }
    }

    /// `size` bytes are about to be published under a digest, in place of as many as there were `before`.
    pub(super) fn arriving(&self, digest: &Digest, size: u64, before: Option<u64>) -> Arrival {
        let key = Key::from(digest);
        if before.is_none() {
            *self.state().arriving.entry(key).or_default() += 1;
        }
        Arrival { usage: self.clone(), key, size, before }
    }

    fn kept(&self, arrival: &Arrival) {
        let Arrival { key, size, before, .. } = *arrival;
        let mut state = self.state();
        state.used = state.used.saturating_add(size).saturating_sub(before.unwrap_or(0));
        if let Some(tally) = &mut state.tally {
            tally.arrived(key, size);
        }
        self.0.metrics.size.set(state.used);
        if state.attended
            && self.need(&state) > 0
            && state.rests_until.is_none_or(|until| Instant::now() >= until)
        {
            self.0.wanted.notify_one();
        }
    }

    /// The `bytes` of a digest were removed.
    pub(super) fn removed(&self, digest: &Digest, bytes: u64) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(bytes);
        if let Some(tally) = &mut state.tally {
            tally.removed(Key::from(digest));
        }
        self.0.metrics.size.set(state.used);
    }

    /// A count of the whole store begins.
    pub(super) fn begin_count(&self) {
        self.state().tally = Some(Tally::default());
    }

    /// A count has come to something. What is being published counts when it is there.
    pub(super) fn seen(&self, digest: &Digest, size: u64) {
        let (mut state, key) = (self.state(), Key::from(digest));
        if state.arriving.contains_key(&key) {
            return;
        }
        if let Some(tally) = &mut state.tally {
            tally.seen(key, size);
        }
    }

    /// A count has ended; where it did not come to the end of the store, it is for nothing.
    pub(super) fn end_count(&self, whole: bool) {
        let mut state = self.state();
        if let Some(tally) = state.tally.take().filter(|_| whole) {
            state.used = tally.bytes();
            self.0.metrics.size.set(state.used);
        }
    }

    /// A blob was fetched, not pushed: where nothing refers to it when space is short, it goes whatever its age.
    pub(super) fn fetched(&self, digest: &Digest) {
        let mut state = self.state();
        if state.fetched.len() < FETCHED {
            state.fetched.insert(Key::from(digest));
        }
    }

    /// What was fetched since this was last asked.
    pub(super) fn take_fetched(&self) -> HashSet<Key> {
        std::mem::take(&mut self.state().fetched)
    }

    /// These were too young to go.
    pub(super) fn still_fetched(&self, keys: HashSet<Key>) {
        self.state().fetched.extend(keys);
    }

    /// Somebody evicts from now on.
    pub(super) fn attend(&self) {
        self.state().attended = true;
    }

    /// Ends when somebody wants room.
    pub(super) async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    /// How many bytes have to go.
    pub(super) fn must_go(&self) -> u64 {
        self.need(&self.state())
    }

    fn need(&self, state: &State) -> u64 {
        let Some(limit) = self.0.limit else { return 0 };
        let wanted = state.used.saturating_add(state.writing).saturating_add(state.asked.min(limit));
        must_go(wanted, limit)
    }

    /// A round of eviction has ended; those who wait look again. Where nothing went that should have, nobody asks again
    /// for as long as `rest`.
    pub(super) fn end_round(&self, rest: Option<Duration>) {
        {
            let mut state = self.state();
            state.asked = 0;
            state.rests_until = rest.map(|rest| Instant::now() + rest);
        }
        self.0.rounds.send_modify(|rounds| *rounds += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many bytes go where `wanted` would be kept: from 95 % of the limit on, as many as it takes to come to 90 %.
fn must_go(wanted: u64, limit: u64) -> u64 {
    let (high, low) = (limit - limit / 20, limit - limit / 10);
    if wanted > high { wanted - low } else { 0 }
}

impl Room {
    /// Takes room for `bytes` more.
    pub(super) async fn extend(&mut self, bytes: u64) -> Result<(), SourceError> {
        self.usage.take(bytes).await?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Arrival {
    /// The bytes are there.
    pub(super) fn succeeded(self) {
        self.usage.kept(&self);
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if self.before.is_some() {
            return;
        }
        let mut state = self.usage.state();
        if let Some(count) = state.arriving.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                state.arriving.remove(&self.key);
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.usage.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn eviction_has_two_marks() {
        for (wanted, expected) in [(0, 0), (950, 0), (951, 51), (1000, 100), (1500, 600)] {
            assert_eq!(must_go(wanted, 1000), expected, "{wanted}");
        }
        assert_eq!((must_go(0, 0), must_go(1, 0)), (0, 1));
    }

    #[tokio::test]
    async fn room_is_taken_before_it_is_used() {
        let usage = Usage::new(Some(100), QuotaMetrics::default());
        let (mut one, mut other) = (usage.room(), usage.room());
        one.extend(60).await.unwrap();
        let refused = other.extend(50).await.unwrap_err();
        assert!(crate::service::is_full(&refused), "{refused:?}");
        other.extend(40).await.unwrap();
        usage.arriving(&Digest::sha256(b"1"), 60, None).succeeded();
        drop(one);
        assert!(other.extend(1).await.is_err(), "what is kept takes the room that its writer had");
        drop(other);
        usage.arriving(&Digest::sha256(b"1"), 70, Some(60)).succeeded();
        assert_eq!(usage.bytes(), 70);
        usage.removed(&Digest::sha256(b"1"), 70);
        usage.room().extend(100).await.unwrap();
    }

    #[test]
    fn what_changes_during_a_count_counts_as_it_is() {
        let usage = Usage::new(Some(1000), QuotaMetrics::default());
        let [old, gone, new, late] = [b"old", b"off", b"new", b"lat"].map(|text| Digest::sha256(text));
        let late_arrival = usage.arriving(&late, 20, None);
        usage.arriving(&gone, 50, None).succeeded();
        usage.begin_count();
        usage.seen(&late, 20);
        usage.seen(&old, 100);
        usage.seen(&gone, 50);
        usage.arriving(&new, 10, None).succeeded();
        usage.seen(&new, 10);
        usage.removed(&gone, 50);
        drop(usage.arriving(&Digest::sha256(b"it failed"), 40, None));
        usage.end_count(true);
        assert_eq!(usage.bytes(), 110, "what went does not come back");
        late_arrival.succeeded();
        assert_eq!(usage.bytes(), 130);
        usage.begin_count();
        usage.seen(&old, 100);
        usage.end_count(false);
        assert_eq!(usage.bytes(), 130, "half a count says nothing");
    }

    #[tokio::test]
    async fn uploads_keep_their_room_between_requests() {
        let usage = Usage::new(Some(100), QuotaMetrics::default());
        let (app, id) = (RepositoryName::local("app").unwrap(), UploadId::from_random([1; 16]));
        usage.extend_upload(&app, &id, 60).await.unwrap();
        usage.extend_upload(&app, &id, 30).await.unwrap();
        assert!(usage.room().extend(20).await.is_err());
        usage.shrink_upload(&id, 30);
        usage.room().extend(40).await.unwrap();
        usage.upload_holds(&app, &id, 95);
        assert!(usage.room().extend(10).await.is_err());
        usage.end_upload(&id);
        usage.end_upload(&id);
        usage.room().extend(100).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_room_waits_for_eviction_and_not_in_vain_twice() {
        let usage = Usage::new(Some(100), QuotaMetrics::default());
        usage.attend();
        usage.arriving(&Digest::sha256(b"1"), 100, None).succeeded();
        let mut room = usage.room();
        {
            let mut waiting = Box::pin(room.extend(10));
            assert!(waiting.as_mut().now_or_never().is_none());
            usage.wanted().await;
            assert_eq!(usage.must_go(), 20);
            usage.removed(&Digest::sha256(b"1"), 20);
            usage.end_round(None);
            waiting.await.unwrap();
        }
        let (mut other, rest) = (usage.room(), Duration::from_secs(60));
        {
            let mut waiting = Box::pin(other.extend(20));
            assert!(waiting.as_mut().now_or_never().is_none());
            usage.end_round(Some(rest));
            assert!(waiting.await.is_err());
        }
        assert!(other.extend(20).now_or_never().unwrap().is_err(), "nobody asks again for a while");
        tokio::time::advance(rest).await;
        let began = Instant::now();
        assert!(other.extend(20).await.is_err(), "nobody waits for ever");
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
