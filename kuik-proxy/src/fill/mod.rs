//! One upstream fetch, any number of readers, while it fills.
//!
//! The first request for a blob starts a [`Fill`]: a task that streams the blob from upstream into the store's
//! spool and hashes it on the way. Every reader, the first one included, reads along as the bytes arrive.
//!
//! - A reader that leaves does not stop the fill, and one that comes late starts at the first byte all the same.
//! - The last bytes wait for the digest ([`progress`]); wrong content ends every transfer and is never stored.
//! - Parts of the blob come as the fill reaches them; short ones that are far ahead are fetched on their own ([`aside`]).
//! - A connection that breaks is taken up where it stopped ([`download`]).
//! - Readers have the newest bytes from memory ([`window`]), the older ones from the spool: a slow store does not
//!   hold them up, and neither does one that is full.
//! - A fill that failed is told to all its readers, and forgotten: the next request starts a new one.
//! - Repositories of one registry share a fill, registries do not: one that stalls or lies holds up nobody else.

mod admitted;
mod aside;
mod download;
mod progress;
mod reader;
mod resume;
mod room;
mod run;
mod spool;
mod window;
#[cfg(test)]
mod window_tests;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError},
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
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;

use self::{
    admitted::Admitted,
    aside::Aside,
    progress::{Phase, Progress},
    window::{Position, Window},
};

/// How many blobs are remembered that upstream sent wrong, and for how long.
const WRONG_BLOBS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
const WRONG_FOR: Duration = Duration::from_secs(3600);

/// The fills that are running.
#[derive(Debug)]
pub(crate) struct Fills {
    running: Mutex<HashMap<FillKey, Arc<Fill>>>,
    /// Blobs whose last fill brought wrong content, and when it ended.
    wrong: Mutex<LruCache<FillKey, Instant>>,
    tasks: TaskTracker,
    max_blob_bytes: u64,
}

/// What a fill is shared by: a registry, and a blob in it.
type FillKey = (Box<str>, Digest);

/// One blob on its way from upstream into the store.
#[derive(Debug)]
pub(crate) struct Fill {
    /// The repository that it is fetched from.
    fetched_from: RepositoryName,
    digest: Digest,
    upstream: Arc<dyn ContentSource>,
    tasks: TaskTracker,
    progress: watch::Sender<Progress>,
    aside: Aside,
    spool: OnceLock<Arc<dyn BlobSpool>>,
    window: Arc<Window>,
    /// True once the store cannot keep the blob: its bytes are for those who wait for them now.
    overflow: watch::Sender<bool>,
    /// Whether it is fetched although the store has it, because the store's copy cannot be read.
    replaces: bool,
    admitted: Admitted,
}

impl Fills {
    /// Fills run on `tasks`, so that whoever owns it can wait for them; blobs beyond `max_blob_bytes` are refused.
    pub(crate) fn new(tasks: TaskTracker, max_blob_bytes: u64) -> Self {
        Self {
            running: Mutex::default(),
            wrong: Mutex::new(LruCache::new(WRONG_BLOBS)),
            tasks,
            max_blob_bytes,
        }
    }

    /// The running fill of `digest` in `repository`'s registry, where there is one.
    ///
    /// It may be another repository's: see [`Fill::admitted`].
    pub(crate) fn join(&self, repository: &RepositoryName, digest: &Digest) -> Option<Joined> {
        let key = key(repository, digest);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&key).map(Joined::new)
    }

    /// The running fill of `digest`, or a new one that fetches it from `repository` at `upstream` into `store`.
    ///
    /// A running one is as with [`Fills::join`]. A new one that `replaces` does not care whether the store has the
    /// blob: its copy cannot be read.
    ///
    /// # Errors
    /// `Unsupported` where the digest's algorithm cannot be verified.
    pub(crate) fn join_or_start(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
        upstream: &Arc<dyn ContentSource>,
        store: &Arc<dyn ContentStore>,
        replaces: bool,
    ) -> Result<Joined, SourceError> {
        let verifier = verifier(repository, digest)?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
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
            aside: Aside::default(),
            spool: OnceLock::new(),
            window: Arc::default(),
            overflow: watch::Sender::new(false),
            replaces,
            admitted: Admitted::new(repository.clone()),
        });
        running.insert(key, fill.clone());
        // Before the task runs: a fill whose store is full ends where it sees no reader.
        let joined = Joined::new(&fill);
        let (fills, task) = (self.clone(), fill.clone());
        let store = store.clone();
        self.tasks.spawn(async move {
            let _ending = Ending { fills: &fills, fill: &task };
            run::run(&fills, &task, verifier, store.as_ref()).await;
        });
        Ok(joined)
    }

    /// Whether wrong content came for `digest` lately. Clients may have parts of it: what they ask for next is not to
    /// be the rest.
    pub(crate) fn was_wrong(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.get(&key(repository, digest)).is_some_and(|ended| ended.elapsed() < WRONG_FOR)
    }

    fn remember_as_wrong(&self, fill: &Fill) {
        let key = key(&fill.fetched_from, &fill.digest);
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).put(key, Instant::now());
    }

    /// Newcomers no longer join `fill`.
    fn forget(&self, fill: &Arc<Fill>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(&fill.fetched_from, &fill.digest);
        if running.get(&key).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            running.remove(&key);
        }
    }
}

/// What will verify `digest`. Content that nothing here can verify is not asked for at all.
///
/// # Errors
/// `Unsupported` where its algorithm is not known.
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
    /// Whether the blob is fetched from `repository`. What upstream says to another says nothing about this one.
    pub(crate) fn is_fetched_from(&self, repository: &RepositoryName) -> bool {
        self.fetched_from == *repository
    }

    /// The repositories that may read it.
    pub(crate) fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// A manifest says that the blob has `size` bytes.
    pub(crate) fn expect(&self, size: u64) {
        self.progress.send_if_modified(|progress| {
            progress.expect(size);
            false
        });
    }

    /// Nothing more is kept: the window waits for the readers from now on.
    fn overflow(&self) {
        self.overflow.send_replace(true);
        self.window.has_spooled();
    }

    fn is_overflowing(&self) -> bool {
        *self.overflow.borrow()
    }

    async fn overflowing(&self) {
        // The sender is ours: this ends with the value, or never.
        let _ = self.overflow.subscribe().wait_for(|overflowing| *overflowing).await;
    }

    fn enter(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    /// What became of the start: upstream has answered, or the store had the blob after all.
    ///
    /// # Errors
    /// Those of the upstream.
    pub(crate) async fn started(&self) -> Result<Started, SourceError> {
        let now = self.when(|now| !matches!(now.phase, Phase::Connecting)).await?;
        match now.phase {
            Phase::Kept => Ok(Started::Kept),
            _ => Ok(Started::Filling { size: now.size() }),
        }
    }

    /// The progress as soon as `reached` holds of it.
    async fn when(&self, reached: impl Fn(&Progress) -> bool) -> Result<Progress, SourceError> {
        let mut progress = self.progress.subscribe();
        let seen = progress.wait_for(|now| reached(now) || matches!(now.phase, Phase::Failed(_))).await;
        match seen.as_deref() {
            Ok(Progress { phase: Phase::Failed(error), .. }) => Err(error.clone()),
            Ok(progress) => Ok(progress.clone()),
            Err(_) => Err(run::abandoned(&self.digest)),
        }
    }
}

/// A part in a fill, from the moment of joining it: the fill sees that somebody waits for its bytes.
#[derive(Debug)]
pub(crate) struct Joined {
    fill: Arc<Fill>,
    position: Position,
}

impl Joined {
    fn new(fill: &Arc<Fill>) -> Self {
        Self { fill: fill.clone(), position: fill.window.reader_at(0) }
    }

    /// The fill.
    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// A reader of `range`. Its headers are known as soon as upstream has sent its own.
    ///
    /// `None` where the store has the blob: it is to be read from there.
    ///
    /// # Errors
    /// Those of the upstream, and `RangeNotSatisfiable`.
    pub(crate) async fn read(self, range: ByteRange) -> Result<Option<Blob>, SourceError> {
        let size = match self.fill.started().await? {
            Started::Kept => return Ok(None),
            // There is no byte that could be held back: the headers wait for the digest.
            Started::Filling { size: Some(0) } => {
                self.fill.when(|now| matches!(now.phase, Phase::Verified)).await?.size()
            }
            // What a range means on a blob of unknown size is known when its bytes are there, or the last byte is.
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
            // One of the two is wrong about the size, and the digest says which.
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

    /// Bytes that are there, of a blob whose end is not.
    fn part_of_unknown(self, part: Range<u64>) -> Blob {
        let body = reader::stream(self.fill, self.position, part.start, Some(part.end));
        Blob { size: None, range: Some(part), body }
    }
}

/// What became of the start of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    /// Upstream sends the blob, and announced this size.
    Filling { size: Option<u64> },
    /// The store had the blob when the fill began.
    Kept,
}

/// However a fill's task ends, newcomers no longer join it, and nobody waits for it for ever.
struct Ending<'a> {
    fills: &'a Fills,
    fill: &'a Arc<Fill>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.fill.progress.send_if_modified(|progress| {
            let unfinished = !progress.has_ended();
            if unfinished {
                progress.phase = Phase::Failed(run::abandoned(&self.fill.digest));
            }
            unfinished
        });
        self.fills.forget(self.fill);
        self.fill.admitted.close();
    }
}
