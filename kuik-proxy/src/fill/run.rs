//! The task of a fill: upstream's bytes into the spool, through the hash, and then into the store.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::Fuse};
use kuik_core::{
    content::{
        BlobStream, BlobWriter, ByteRange, ContentSource, ContentStore, Digest, SourceError, SourceErrorKind,
        Verified, Verifier,
    },
    reference::RepositoryName,
};

use super::{Fill, Fills, progress::Phase};

/// How many bytes are hashed and written at once.
const BATCH_BYTES: usize = 1 << 20;

/// Below this, hashing costs less than handing it to another thread.
const WORTH_A_THREAD: usize = 64 << 10;

/// Fetches, verifies and publishes; every outcome ends up in the fill's progress.
pub(super) async fn run(
    fills: &Fills,
    fill: &Arc<Fill>,
    verifier: Verifier,
    repository: &RepositoryName,
    upstream: &dyn ContentSource,
    store: &dyn ContentStore,
) {
    // An earlier fill may have published between the miss that started this one and now.
    if store.has_blob(&fill.digest).await.is_ok_and(|size| size.is_some()) {
        fill.progress.send_modify(|progress| progress.phase = Phase::Kept);
        return;
    }
    let mut sink = Sink { fills, fill, writer: None };
    match fetch(&mut sink, verifier, repository, upstream, store).await {
        Err(error) => {
            tracing::warn!(digest = %fill.digest, %repository, error = error.chain(), "a blob could not be fetched");
            fill.progress.send_modify(|progress| progress.phase = Phase::Failed(error));
        }
        Ok(verified) => {
            // Readers get their last bytes now; that the blob becomes durable is not theirs to wait for.
            fill.progress.send_modify(|progress| progress.phase = Phase::Verified);
            sink.publish(verified).await;
        }
    }
}

async fn fetch(
    sink: &mut Sink<'_>,
    mut verifier: Verifier,
    repository: &RepositoryName,
    upstream: &dyn ContentSource,
    store: &dyn ContentStore,
) -> Result<Verified, SourceError> {
    let digest = &sink.fill.digest;
    let blob = upstream.blob(repository, digest, ByteRange::Full).await?.content;
    let attempted = || format!("fetch blob {digest} of {repository}");
    let limit = blob.size.unwrap_or(sink.fills.max_blob_bytes).min(sink.fills.max_blob_bytes);
    if blob.size.is_some_and(|size| size > limit) {
        let problem = format!("{}: it has more than the {limit} bytes that are accepted", attempted());
        return Err(SourceError::new(SourceErrorKind::InvalidContent, problem));
    }
    sink.open(store, blob.size).await;

    let mut body = blob.body.fuse();
    let mut received = 0;
    while let Some(batch) = next_batch(&mut body).await {
        let batch = batch?;
        received += batch.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        if received > limit {
            let problem = format!("{}: upstream sent more than {limit} bytes", attempted());
            return Err(SourceError::new(SourceErrorKind::InvalidContent, problem));
        }
        let (hashed, kept) = tokio::join!(hash(verifier, batch.clone()), sink.take(batch));
        verifier = hashed?;
        kept?;
    }
    if let Some(size) = blob.size.filter(|&size| size != received) {
        let problem = format!("{}: upstream announced {size} bytes and sent {received}", attempted());
        return Err(SourceError::new(SourceErrorKind::InvalidContent, problem));
    }
    verifier
        .finish()
        .map_err(|mismatch| SourceError::caused_by(SourceErrorKind::InvalidContent, attempted(), mismatch))
}

/// Where the bytes go: into the store's writer, or into the overflow window once the writer has failed.
struct Sink<'a> {
    fills: &'a Fills,
    fill: &'a Arc<Fill>,
    writer: Option<Box<dyn BlobWriter>>,
}

impl Sink<'_> {
    /// Starts a writer, and tells the readers that bytes will come.
    async fn open(&mut self, store: &dyn ContentStore, size: Option<u64>) {
        match store.write_blob().await {
            Ok(writer) => {
                // Set once: a fill is opened once.
                let _ = self.fill.spool.set(writer.spool());
                self.writer = Some(writer);
            }
            Err(error) => self.overflow(&error),
        }
        self.fill.progress.send_modify(|progress| progress.phase = Phase::Filling { size });
    }

    async fn take(&mut self, batch: Vec<Bytes>) -> Result<(), SourceError> {
        let length: u64 = batch.iter().map(|chunk| chunk.len() as u64).sum();
        if let Some(writer) = &mut self.writer {
            match writer.append(&batch).await {
                Ok(()) => {
                    self.fill.progress.send_modify(|progress| {
                        progress.received += length;
                        progress.spooled += length;
                    });
                    return Ok(());
                }
                Err(error) => self.overflow(&error),
            }
        }
        self.fill.overflow.push(batch);
        self.fill.progress.send_modify(|progress| progress.received += length);
        if self.fill.overflow.room().await {
            Ok(())
        } else {
            let problem = format!("fetch blob {}: the store is full, and nobody reads it", self.fill.digest);
            Err(SourceError::new(SourceErrorKind::Storage, problem))
        }
    }

    /// From here on nothing more is kept. Newcomers start a fill of their own, which may find room again.
    fn overflow(&mut self, error: &SourceError) {
        tracing::warn!(
            digest = %self.fill.digest,
            error = error.chain(),
            "the store cannot keep a blob: it is passed on to those who wait for it"
        );
        self.writer = None;
        self.fill.overflow.open_at(self.fill.progress.borrow().spooled);
        self.fills.forget(self.fill);
    }

    async fn publish(self, verified: Verified) {
        let Some(writer) = self.writer else { return };
        let repositories = self.fill.authorised_repositories();
        if let Err(error) = writer.publish(verified, &repositories).await {
            tracing::warn!(digest = %self.fill.digest, error = error.chain(), "a fetched blob could not be kept");
        }
    }
}

/// What has arrived, without waiting for more than the first chunk; `None` at the end.
async fn next_batch(body: &mut Fuse<BlobStream>) -> Option<Result<Vec<Bytes>, SourceError>> {
    let first = match body.next().await? {
        Ok(chunk) => chunk,
        Err(error) => return Some(Err(error)),
    };
    let mut length = first.len();
    let mut batch = vec![first];
    while length < BATCH_BYTES {
        match body.next().now_or_never() {
            Some(Some(Ok(chunk))) => {
                length += chunk.len();
                batch.push(chunk);
            }
            Some(Some(Err(error))) => return Some(Err(error)),
            Some(None) | None => break,
        }
    }
    Some(Ok(batch))
}

async fn hash(mut verifier: Verifier, batch: Vec<Bytes>) -> Result<Verifier, SourceError> {
    let length: usize = batch.iter().map(Bytes::len).sum();
    let update = move || {
        batch.iter().for_each(|chunk| verifier.update(chunk));
        verifier
    };
    if length < WORTH_A_THREAD {
        return Ok(update());
    }
    tokio::task::spawn_blocking(update)
        .await
        .map_err(|error| SourceError::caused_by(SourceErrorKind::Storage, "hash a blob", error))
}

/// What readers learn when the task of their fill ended without a word: the runtime is shutting down.
pub(super) fn abandoned(digest: &Digest) -> SourceError {
    SourceError::new(
        SourceErrorKind::Unavailable,
        format!("fetch blob {digest}: this process is shutting down"),
    )
}
