//! Space accounting of a store.
//!
//! Invariant: stored bytes and bytes being written are together at most the limit, as far as this process knows. A
//! writer reserves space before it writes; if there is none, it requests eviction and waits briefly. Two
//! concurrent writes of the same bytes may both be counted, until the next recount.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use kuik_core::{
    content::{Digest, SourceError, UploadId},
    reference::RepositoryName,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, RwLock, RwLockReadGuard, RwLockWriteGuard, watch},
    time::Instant,
};

use super::{QuotaMetrics, recount::Recount};
use crate::maintenance::gc::Key;

/// Time limit of a writer's wait for eviction.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of blobs remembered as fetched; for others their age decides.
const FETCHED: usize = 50_000;

/// Size and limit of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Usage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: Option<u64>,
    state: Mutex<State>,
    wanted: Notify,
    rounds: watch::Sender<u64>,
    /// Reading the size of an upload locks it for a moment, which must not cause a client's request to fail.
    opening: RwLock<()>,
    metrics: QuotaMetrics,
}

#[derive(Debug, Default)]
struct State {
    /// Stored bytes.
    used: u64,
    /// New content being published now: a count may see it already.
    arriving: HashMap<Key, u32>,
    /// The count in progress.
    recount: Option<Recount>,
    /// Bytes being written, uploads included.
    writing: u64,
    /// Share of uploads, until they end: those known to have any bytes.
    uploads: HashMap<UploadId, (RepositoryName, u64)>,
    /// Content that can be fetched again, and may be unreferenced.
    fetched: HashSet<Key>,
    /// Largest request refused since the last round of eviction.
    asked: u64,
    /// Whether evictions run.
    eviction_enabled: bool,
    rests_until: Option<Instant>,
}

/// Bytes being published. Dropping it ends that, with success or failure.
#[derive(Debug)]
pub(super) struct Arrival {
    usage: Usage,
    key: Key,
    size: u64,
    before: Option<u64>,
}

/// Space reserved by a writer. Dropping it releases the space.
#[derive(Debug)]
pub(super) struct Reservation {
    usage: Usage,
    bytes: u64,
}

impl Usage {
    /// Starts at zero, until the first count. Without a `limit` there is always space.
    #[must_use]
    pub fn new(limit: Option<u64>, metrics: QuotaMetrics) -> Self {
        metrics.limit.set(limit.unwrap_or(0));
        let (state, wanted) = (Mutex::default(), Notify::default());
        let (rounds, opening) = (watch::Sender::new(0), RwLock::default());
        Self(Arc::new(Inner { limit, state, wanted, rounds, opening, metrics }))
    }

    /// Returns the number of stored bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state().used
    }

    /// Returns an empty reservation, to be extended.
    pub(super) fn reserve(&self) -> Reservation {
        Reservation { usage: self.clone(), bytes: 0 }
    }

    /// Reserves `bytes` more; waits for eviction if there is no space.
    async fn take(&self, bytes: u64) -> Result<(), SourceError> {
        if self.take_or_evict(bytes).await {
            return Ok(());
        }
        self.0.metrics.refused.inc();
        let limit = self.0.limit.unwrap_or(u64::MAX);
        let attempted =
            format!("store {bytes} more bytes: the limit is {limit}, and nothing else can be evicted now");
        Err(SourceError::storage(attempted, io::ErrorKind::QuotaExceeded.into()))
    }

    /// Reserves `bytes` more, after an eviction if there is no space; returns whether it did.
    async fn take_or_evict(&self, bytes: u64) -> bool {
        if self.try_take(bytes) {
            return true;
        }
        let evicted = tokio::time::timeout(EVICTION_TIMEOUT, async {
            let mut rounds = self.0.rounds.subscribe();
            // The current round may have begun before space was short.
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
        evicted.await.unwrap_or(false)
    }

    /// Returns the size limit in bytes, if there is one.
    pub(super) fn limit(&self) -> Option<u64> {
        self.0.limit
    }

    /// Returns whether `bytes` more fit without evicting anything, now or soon.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        let state = self.state();
        let Some(limit) = self.0.limit else { return true };
        let wanted = state.used.saturating_add(state.writing).saturating_add(bytes);
        bytes_to_free(wanted, limit) == 0
    }

    /// Evicts until `bytes` more fit, as a write of that size would; returns whether they do. The space is not
    /// reserved.
    pub(super) async fn make_room(&self, bytes: u64) -> bool {
        let has_room = self.take_or_evict(bytes).await;
        if has_room {
            self.give_back(bytes);
        }
        has_room
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

    /// Requests eviction; returns false if that is useless.
    fn ask(&self, bytes: u64) -> bool {
        let state = self.state();
        let in_vain = !state.eviction_enabled
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

    /// Reserves space for more bytes of an upload, until the upload ends.
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

    /// Releases space of an upload whose bytes were not stored.
    pub(super) fn shrink_upload(&self, id: &UploadId, bytes: u64) {
        let mut state = self.state();
        if let Some((_, taken)) = state.uploads.get_mut(id) {
            let back = bytes.min(*taken);
            *taken -= back;
            state.writing = state.writing.saturating_sub(back);
        }
    }

    /// Sets the size of an upload, whatever it was before: it may be older than this process. The bytes exist, so no
    /// space is requested.
    pub(super) fn upload_holds(&self, repository: &RepositoryName, id: &UploadId, bytes: u64) {
        let mut state = self.state();
        let before = state.uploads.remove(id).map_or(0, |(_, taken)| taken);
        state.writing = state.writing.saturating_sub(before).saturating_add(bytes);
        if bytes > 0 {
            state.uploads.insert(id.clone(), (repository.clone(), bytes));
        }
    }

    /// Removes an upload that does not exist in this repository. If another one has it, its size is kept.
    pub(super) fn upload_is_absent(&self, repository: &RepositoryName, id: &UploadId) {
        let mut state = self.state();
        let known = state.uploads.get(id).is_some_and(|(at, _)| at == repository);
        if known && let Some((_, bytes)) = state.uploads.remove(id) {
            state.writing = state.writing.saturating_sub(bytes);
        }
    }

    /// Returns the uploads that have reserved space.
    pub(super) fn uploads(&self) -> Vec<(RepositoryName, UploadId)> {
        self.state().uploads.iter().map(|(id, (repository, _))| (repository.clone(), id.clone())).collect()
    }

    /// Lock while an upload is opened for a client.
    pub(super) async fn opening(&self) -> RwLockReadGuard<'_, ()> {
        self.0.opening.read().await
    }

    /// Lock while an upload is opened only to read its size.
    pub(super) async fn looking(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.opening.write().await
    }

    /// Ends an upload, completed or not.
    pub(super) fn end_upload(&self, id: &UploadId) {
        let mut state = self.state();
        if let Some((_, bytes)) = state.uploads.remove(id) {
            state.writing = state.writing.saturating_sub(bytes);
        }
    }

    /// Announces that `size` bytes are about to be published under a digest, replacing `before`.
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
        if let Some(recount) = &mut state.recount {
            recount.arrived(key, size);
        }
        self.0.metrics.size.set(state.used);
        if state.eviction_enabled
            && self.need(&state) > 0
            && state.rests_until.is_none_or(|until| Instant::now() >= until)
        {
            self.0.wanted.notify_one();
        }
    }

    /// Counts the removal of the `bytes` of a digest.
    pub(super) fn removed(&self, digest: &Digest, bytes: u64) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(bytes);
        if let Some(recount) = &mut state.recount {
            recount.removed(Key::from(digest));
        }
        self.0.metrics.size.set(state.used);
    }

    /// Begins a count of the whole store.
    pub(super) fn begin_count(&self) {
        self.state().recount = Some(Recount::default());
    }

    /// Counts an entry of the walk. Content being published counts when it is stored.
    pub(super) fn seen(&self, digest: &Digest, size: u64) {
        let (mut state, key) = (self.state(), Key::from(digest));
        if state.arriving.contains_key(&key) {
            return;
        }
        if let Some(recount) = &mut state.recount {
            recount.seen(key, size);
        }
    }

    /// Ends a count; an incomplete one is discarded.
    pub(super) fn end_count(&self, whole: bool) {
        let mut state = self.state();
        if let Some(recount) = state.recount.take().filter(|_| whole) {
            state.used = recount.bytes();
            self.0.metrics.size.set(state.used);
        }
    }

    /// Records a blob as fetched, not pushed: if it is unreferenced when space is short, it is removed whatever its
    /// age.
    pub(super) fn fetched(&self, digest: &Digest) {
        let mut state = self.state();
        if state.fetched.len() < FETCHED {
            state.fetched.insert(Key::from(digest));
        }
    }

    /// Takes the blobs fetched since the last call.
    pub(super) fn take_fetched(&self) -> HashSet<Key> {
        std::mem::take(&mut self.state().fetched)
    }

    /// Puts back fetched blobs that were too young to remove.
    pub(super) fn still_fetched(&self, keys: HashSet<Key>) {
        self.state().fetched.extend(keys);
    }

    /// Records that evictions run from now on.
    pub(super) fn enable_eviction(&self) {
        self.state().eviction_enabled = true;
    }

    /// Waits until space is requested.
    pub(super) async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    /// Returns the number of bytes to free.
    pub(super) fn bytes_to_free(&self) -> u64 {
        self.need(&self.state())
    }

    fn need(&self, state: &State) -> u64 {
        let Some(limit) = self.0.limit else { return 0 };
        let wanted = state.used.saturating_add(state.writing).saturating_add(state.asked.min(limit));
        bytes_to_free(wanted, limit)
    }

    /// Ends a round of eviction and wakes waiting writers. If it failed to free space, no further round is requested
    /// during `rest`.
    pub(super) fn end_round(&self, rest: Option<Duration>) {
        {
            let mut state = self.state();
            state.asked = 0;
            state.rests_until = rest.map(|rest| Instant::now() + rest);
        }
        self.0.rounds.send_modify(|rounds| *rounds += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

/// Returns the number of bytes to free if `wanted` would be stored: above 95 % of the limit, down to 90 %.
fn bytes_to_free(wanted: u64, limit: u64) -> u64 {
    let (high, low) = (limit - limit / 20, limit - limit / 10);
    if wanted > high { wanted - low } else { 0 }
}

impl Reservation {
    /// Reserves `bytes` more.
    pub(super) async fn extend(&mut self, bytes: u64) -> Result<(), SourceError> {
        self.usage.take(bytes).await?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Arrival {
    /// Counts the bytes as stored.
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

impl Drop for Reservation {
    fn drop(&mut self) {
        self.usage.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn eviction_has_high_and_low_watermarks() {
        for (wanted, expected) in [(0, 0), (950, 0), (951, 51), (1000, 100), (1500, 600)] {
            assert_eq!(bytes_to_free(wanted, 1000), expected, "{wanted}");
        }
        assert_eq!((bytes_to_free(0, 0), bytes_to_free(1, 0)), (0, 1));
    }

    #[tokio::test]
    async fn space_is_reserved_before_writing() {
        let usage = Usage::new(Some(100), QuotaMetrics::default());
        let (mut one, mut other) = (usage.reserve(), usage.reserve());
        one.extend(60).await.unwrap();
        let refused = other.extend(50).await.unwrap_err();
        assert!(crate::service::is_full(&refused), "{refused:?}");
        other.extend(40).await.unwrap();
        usage.arriving(&Digest::sha256(b"1"), 60, None).succeeded();
        drop(one);
        assert!(other.extend(1).await.is_err(), "stored bytes take the space of their writer");
        drop(other);
        usage.arriving(&Digest::sha256(b"1"), 70, Some(60)).succeeded();
        assert_eq!(usage.bytes(), 70);
        usage.removed(&Digest::sha256(b"1"), 70);
        usage.reserve().extend(100).await.unwrap();
    }

    #[test]
    fn concurrent_changes_are_counted() {
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
        assert_eq!(usage.bytes(), 110, "removed content is not counted");
        late_arrival.succeeded();
        assert_eq!(usage.bytes(), 130);
        usage.begin_count();
        usage.seen(&old, 100);
        usage.end_count(false);
        assert_eq!(usage.bytes(), 130, "an incomplete count is discarded");
    }

    #[tokio::test]
    async fn uploads_keep_their_space_between_requests() {
        let usage = Usage::new(Some(100), QuotaMetrics::default());
        let (app, id) = (RepositoryName::local("app").unwrap(), UploadId::from_random([1; 16]));
        usage.extend_upload(&app, &id, 60).await.unwrap();
        usage.extend_upload(&app, &id, 30).await.unwrap();
        assert!(usage.reserve().extend(20).await.is_err());
        usage.shrink_upload(&id, 30);
        usage.reserve().extend(40).await.unwrap();
        usage.upload_holds(&app, &id, 95);
        assert!(usage.reserve().extend(10).await.is_err());
        usage.end_upload(&id);
        usage.end_upload(&id);
        usage.reserve().extend(100).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn writer_waits_for_eviction_unless_it_just_failed() {
        let usage = Usage::new(Some(100), QuotaMetrics::default());
        usage.enable_eviction();
        usage.arriving(&Digest::sha256(b"1"), 100, None).succeeded();
        let mut reservation = usage.reserve();
        {
            let mut waiting = Box::pin(reservation.extend(10));
            assert!(waiting.as_mut().now_or_never().is_none());
            usage.wanted().await;
            assert_eq!(usage.bytes_to_free(), 20);
            usage.removed(&Digest::sha256(b"1"), 20);
            usage.end_round(None);
            waiting.await.unwrap();
        }
        let (mut other, rest) = (usage.reserve(), Duration::from_secs(60));
        {
            let mut waiting = Box::pin(other.extend(20));
            assert!(waiting.as_mut().now_or_never().is_none());
            usage.end_round(Some(rest));
            assert!(waiting.await.is_err());
        }
        assert!(other.extend(20).now_or_never().unwrap().is_err(), "no new request during the pause");
        tokio::time::advance(rest).await;
        let began = Instant::now();
        assert!(other.extend(20).await.is_err(), "the wait is bounded");
        assert_eq!(began.elapsed(), EVICTION_TIMEOUT);
    }
}
