//! Shared blob fill: one upstream fetch, any number of concurrent readers.
//!
//! The first request for a blob starts a [`Fill`]: a task that streams the blob from upstream into the store's spool
//! and hashes it on the way. Every reader, including the first, gets the bytes as they arrive.
//!
//! - A reader that disconnects does not stop the fill, and a late reader still starts at the first byte.
//! - The last bytes wait for the digest ([`progress`]); wrong content ends every transfer and is never stored.
//! - Ranges are served as the fill reaches them; short ranges far ahead are fetched separately ([`range_prefetch`]).
//! - A broken connection is resumed at the offset reached ([`download`]).
//! - Readers get the newest bytes from memory ([`window`]), older ones from the spool: neither a slow store nor a
//!   full one delays them.
//! - A failed fill returns its error to all its readers and is forgotten: the next request starts a new one.
//! - Repositories of one registry share a fill, registries do not: one that stalls or sends wrong content affects no
//!   other.

mod authorized;
mod backpressure;
mod download;
mod progress;
mod range_prefetch;
mod reader;
mod resume;
mod run;
mod spool;
mod window;
#[cfg(test)]
mod window_tests;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use kuik_core::{
    content::{
        Blob, BlobSpool, ByteRange, ContentSource, ContentStore, Digest, SourceError, SourceErrorKind,
        Verifier,
    },
    reference::RepositoryName,
};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;

use self::{
    authorized::Authorized,
    progress::{Phase, Progress},
    range_prefetch::RangePrefetch,
    window::{Position, Window},
};

/// How many blobs with wrong content from upstream are remembered, and for how long.
const CORRUPT_BLOBS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
const CORRUPT_TTL: Duration = Duration::from_secs(3600);

/// The running fills.
#[derive(Debug)]
pub(crate) struct Fills {
    running: Mutex<HashMap<FillKey, Arc<Fill>>>,
    /// Blobs whose last fill returned wrong content, and when it ended.
    corrupt: Mutex<LruCache<FillKey, Instant>>,
    tasks: TaskTracker,
    max_blob_bytes: u64,
}

/// Key by which fills are shared: a registry, and a blob in it.
type FillKey = (Box<str>, Digest);

/// One blob in transfer from upstream into the store.
#[derive(Debug)]
pub(crate) struct Fill {
    /// The repository that the blob is fetched from.
    fetched_from: RepositoryName,
    digest: Digest,
    upstream: Arc<dyn ContentSource>,
    tasks: TaskTracker,
    progress: watch::Sender<Progress>,
    prefetch: RangePrefetch,
    spool: OnceLock<Arc<dyn BlobSpool>>,
    window: Arc<Window>,
    /// True once the store cannot store the blob: its bytes go to the current readers only.
    overflow: watch::Sender<bool>,
    /// Whether the blob is fetched although the store has it, because the store's copy cannot be read.
    replaces: bool,
    authorized: Authorized,
}

impl Fills {
    /// Fills run on `tasks`, so that its owner can wait for them; blobs beyond `max_blob_bytes` are refused.
    pub(crate) fn new(tasks: TaskTracker, max_blob_bytes: u64) -> Self {
        Self {
            running: Mutex::default(),
            corrupt: Mutex::new(LruCache::new(CORRUPT_BLOBS)),
            tasks,
            max_blob_bytes,
        }
    }

    /// Returns the running fill of `digest` in `repository`'s registry, if there is one.
    ///
    /// It may have been started for another repository: see [`Fill::authorized`].
    pub(crate) fn join(&self, repository: &RepositoryName, digest: &Digest) -> Option<Joined> {
        let key = key(repository, digest);
        self.running.lock().get(&key).map(Joined::new)
    }

    /// Returns the running fill of `digest`, or starts one that fetches it from `repository` at `upstream` into
    /// `store`.
    ///
    /// A running one is as with [`Fills::join`]. A new one that `replaces` ignores that the store has the blob: its
    /// copy cannot be read.
    ///
    /// # Errors
    /// Returns `Unsupported` if the digest's algorithm cannot be verified.
    pub(crate) fn join_or_start(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
        upstream: &Arc<dyn ContentSource>,
        store: &Arc<dyn ContentStore>,
        replaces: bool,
    ) -> Result<Joined, SourceError> {
        let verifier = verifier(repository, digest)?;
        let mut running = self.running.lock();
        let key = key(repository, digest);
        if let Some(fill) = running.get(&key) {
            return Ok(Joined::new(fill));
        }
        let fill = Arc::new(Fill {
            fetched_from: repository.clone(),
            digest: digest.clone(),
            upstream: upstream.clone(),
            tasks: self.tasks.clone(),
            progress: watch::Sender::new(Progress::new()),
            prefetch: RangePrefetch::default(),
            spool: OnceLock::new(),
            window: Arc::default(),
            overflow: watch::Sender::new(false),
            replaces,
            authorized: Authorized::new(repository.clone()),
        });
        running.insert(key, fill.clone());
        // Before the task runs: a fill whose store is full ends if it has no reader.
        let joined = Joined::new(&fill);
        let (fills, task) = (self.clone(), fill.clone());
        let store = store.clone();
        self.tasks.spawn(async move {
            let _ending = Ending { fills: &fills, fill: &task };
            run::run(&fills, &task, verifier, store.as_ref()).await;
        });
        Ok(joined)
    }

    /// Whether wrong content was received for `digest` recently. Clients may have parts of it, and must not get the
    /// rest with their next request.
    pub(crate) fn was_corrupt(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let mut corrupt = self.corrupt.lock();
        corrupt.get(&key(repository, digest)).is_some_and(|ended| ended.elapsed() < CORRUPT_TTL)
    }

    fn remember_corrupt(&self, fill: &Fill) {
        let key = key(&fill.fetched_from, &fill.digest);
        self.corrupt.lock().put(key, Instant::now());
    }

    /// New requests no longer join `fill`.
    fn forget(&self, fill: &Arc<Fill>) {
        let mut running = self.running.lock();
        let key = key(&fill.fetched_from, &fill.digest);
        if running.get(&key).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            running.remove(&key);
        }
    }
}

/// Returns a verifier for `digest`. Content that cannot be verified here is not requested at all.
///
/// # Errors
/// Returns `Unsupported` if the digest's algorithm is unknown.
pub(crate) fn verifier(repository: &RepositoryName, digest: &Digest) -> Result<Verifier, SourceError> {
    Verifier::new(digest).ok_or_else(|| {
        let attempted = format!("fetch {digest} of {repository}: its digest cannot be verified here");
        SourceError::new(SourceErrorKind::Unsupported, attempted)
    })
}

fn key(repository: &RepositoryName, digest: &Digest) -> FillKey {
    (repository.registry().into(), digest.clone())
}

impl Fill {
    /// Whether the blob is fetched from `repository`. An upstream response for another repository does not apply to
    /// this one.
    pub(crate) fn is_fetched_from(&self, repository: &RepositoryName) -> bool {
        self.fetched_from == *repository
    }

    /// The repositories that may read the blob.
    pub(crate) fn authorized(&self) -> &Authorized {
        &self.authorized
    }

    /// Records that a manifest gives the blob `size` bytes.
    pub(crate) fn expect(&self, size: u64) {
        self.progress.send_if_modified(|progress| {
            progress.expect(size);
            false
        });
    }

    /// Stops storing: the window waits for the readers from now on.
    fn overflow(&self) {
        self.overflow.send_replace(true);
        self.window.has_spooled();
    }

    fn is_overflowing(&self) -> bool {
        *self.overflow.borrow()
    }

    async fn overflowing(&self) {
        // `self` owns the sender: this ends with the value, or never.
        let _ = self.overflow.subscribe().wait_for(|overflowing| *overflowing).await;
    }

    fn enter(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    /// Waits until the fill has started: upstream has answered, or the store has the blob after all.
    ///
    /// # Errors
    /// Returns the upstream's errors.
    pub(crate) async fn started(&self) -> Result<Started, SourceError> {
        let now = self.when(|now| !matches!(now.phase, Phase::Connecting)).await?;
        match now.phase {
            Phase::Stored => Ok(Started::Stored),
            _ => Ok(Started::Filling { size: now.size() }),
        }
    }

    /// Returns the progress as soon as `reached` is true for it.
    async fn when(&self, reached: impl Fn(&Progress) -> bool) -> Result<Progress, SourceError> {
        let mut progress = self.progress.subscribe();
        let seen = progress.wait_for(|now| reached(now) || matches!(now.phase, Phase::Failed(_))).await;
        match seen.as_deref() {
            Ok(Progress { phase: Phase::Failed(error), .. }) => Err(error.clone()),
            Ok(progress) => Ok(progress.clone()),
            Err(_) => Err(progress::abandoned(&self.digest)),
        }
    }
}

/// Membership in a fill, from the moment of joining: the fill knows that a reader waits for its bytes.
#[derive(Debug)]
pub(crate) struct Joined {
    fill: Arc<Fill>,
    position: Position,
}

impl Joined {
    fn new(fill: &Arc<Fill>) -> Self {
        Self { fill: fill.clone(), position: fill.window.reader_at(0) }
    }

    /// The joined fill.
    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Returns a reader of `range`. Its headers are known as soon as upstream has sent its own.
    ///
    /// Returns `None` if the store has the blob: the caller reads it from there.
    ///
    /// # Errors
    /// Returns the upstream's errors, and `RangeNotSatisfiable`.
    pub(crate) async fn read(self, range: ByteRange) -> Result<Option<Blob>, SourceError> {
        let size = match self.fill.started().await? {
            Started::Stored => return Ok(None),
            // There is no byte to withhold: the headers wait for the digest.
            Started::Filling { size: Some(0) } => {
                self.fill.when(|now| matches!(now.phase, Phase::Verified)).await?.size()
            }
            // A range of a blob of unknown size can be resolved once its bytes have arrived, or the last byte has.
            Started::Filling { size: None } if range != ByteRange::Full => {
                let end = match range {
                    ByteRange::From { last: Some(last), .. } => last.saturating_add(1),
                    _ => u64::MAX,
                };
                let now = self.fill.when(|now| now.reaches(end)).await?;
                if let (None, ByteRange::From { first, .. }) = (now.size(), range)
                    && first < end
                {
                    return Ok(Some(self.part_of_unknown(first..end)));
                }
                now.size()
            }
            Started::Filling { size } => size,
        };
        let expected = self.fill.progress.borrow().expected;
        if let (Some(size), Some(expected)) = (size, expected)
            && range.resolve(size).is_err()
            && range.resolve(expected).is_ok()
        {
            // One of the two sizes is wrong; the digest decides which.
            self.fill.when(|now| matches!(now.phase, Phase::Verified)).await?;
        }
        let bytes = match size {
            None => None,
            Some(size) => Some(range.resolve(size).map_err(|error| {
                let attempted = format!("read blob {} while it fills", self.fill.digest);
                SourceError::caused_by(SourceErrorKind::RangeNotSatisfiable, attempted, error)
            })?),
        };
        let (start, end) = bytes.clone().map_or((0, None), |bytes| (bytes.start, Some(bytes.end)));
        Ok(Some(Blob {
            size,
            range: bytes.filter(|_| range != ByteRange::Full),
            body: reader::stream(self.fill, self.position, start, end),
        }))
    }

    /// Bytes that have arrived, of a blob whose end has not.
    fn part_of_unknown(self, part: Range<u64>) -> Blob {
        let body = reader::stream(self.fill, self.position, part.start, Some(part.end));
        Blob { size: None, range: Some(part), body }
    }
}

/// Outcome of starting a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    /// Upstream sends the blob, and announced this size.
    Filling { size: Option<u64> },
    /// The store had the blob when the fill began.
    Stored,
}

/// When a fill's task ends for any reason, no request joins it any longer, and no reader waits forever.
struct Ending<'a> {
    fills: &'a Fills,
    fill: &'a Arc<Fill>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.fill.progress.send_if_modified(|progress| {
            let unfinished = !progress.has_ended();
            if unfinished {
                progress.phase = Phase::Failed(progress::abandoned(&self.fill.digest));
            }
            unfinished
        });
        self.fills.forget(self.fill);
        self.fill.authorized.close();
    }
}
