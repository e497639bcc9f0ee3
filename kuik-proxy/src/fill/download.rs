//! Upstream's bytes of one blob, in order and each once, though connections break on the way.
//!
//! A transfer that breaks is taken up where it stopped, by a request for the rest ([`resume`](super::resume) says how
//! often). An upstream that ignores that and sends everything is read to where the transfer stopped. What follows may
//! be of another length, or other bytes under another entity tag: of the length this notices, of the bytes the digest
//! of the whole does, and nothing else is to be believed.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures::{FutureExt as _, StreamExt as _, stream::Fuse};
use kuik_core::{
    content::{
        Blob, BlobStream, ByteRange, ContentSource, Digest, InvalidRange, SourceError, SourceErrorKind,
    },
    reference::RepositoryName,
};
use tokio::time::Instant;

use super::resume::Breaks;

/// How many bytes are handed on at once, where so many are there.
const BATCH_BYTES: usize = 1 << 20;

/// How long readers wait for the next byte, whatever is attempted meanwhile.
const NO_PROGRESS: Duration = Duration::from_secs(75);

/// A blob as it comes from upstream.
pub(super) struct Download<'a> {
    upstream: &'a dyn ContentSource,
    repository: &'a RepositoryName,
    digest: &'a Digest,
    size: Option<u64>,
    body: Fuse<BlobStream>,
    received: u64,
    last_byte: Instant,
    /// How many bytes of `body` were received before.
    skipping: u64,
    /// An error that stands behind the batch that was handed out last.
    broken: Option<SourceError>,
    breaks: Breaks,
}

impl<'a> Download<'a> {
    /// Asks upstream for the blob, and waits for its headers.
    ///
    /// # Errors
    /// Those of the upstream.
    pub(super) async fn open(
        upstream: &'a dyn ContentSource,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> Result<Self, SourceError> {
        let blob = upstream.blob(repository, digest, ByteRange::Full).await?.content;
        Ok(Self {
            upstream,
            repository,
            digest,
            size: blob.size,
            body: blob.body.fuse(),
            received: 0,
            last_byte: Instant::now(),
            skipping: 0,
            broken: None,
            breaks: Breaks::default(),
        })
    }

    /// How many bytes upstream announced, where it did.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// What has arrived, without waiting for more than the first chunk; `None` at the end.
    pub(super) async fn next_batch(&mut self) -> Option<Result<Vec<Bytes>, SourceError>> {
        loop {
            let error = match self.broken.take() {
                Some(error) => error,
                None => match self.read().await? {
                    Ok(batch) if batch.is_empty() => continue,
                    Ok(batch) => return Some(Ok(batch)),
                    Err(error) => error,
                },
            };
            match self.resume(error).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    async fn read(&mut self) -> Option<Result<Vec<Bytes>, SourceError>> {
        let mut next = self.body.next().await;
        let (mut batch, mut length) = (Vec::new(), 0);
        while let Some(chunk) = next {
            match chunk {
                Ok(mut chunk) => {
                    let skipped = usize::try_from(self.skipping).unwrap_or(usize::MAX).min(chunk.len());
                    chunk.advance(skipped);
                    self.skipping -= skipped as u64;
                    length += chunk.len();
                    if !chunk.is_empty() {
                        batch.push(chunk);
                    }
                }
                Err(error) if length == 0 => return Some(Err(error)),
                Err(error) => {
                    self.broken = Some(error);
                    break;
                }
            }
            if length >= BATCH_BYTES {
                break;
            }
            // What has not come yet is not waited for; the end is asked for again.
            let Some(Some(more)) = self.body.next().now_or_never() else { break };
            next = Some(more);
        }
        if length == 0 && self.body.is_done() {
            return None;
        }
        if length > 0 {
            self.received += length as u64;
            self.last_byte = Instant::now();
            self.breaks.moved();
        }
        Some(Ok(batch))
    }

    /// Asks for what is missing, until it comes. `false` where nothing is missing.
    async fn resume(&mut self, mut error: SourceError) -> Result<bool, SourceError> {
        loop {
            let dice = RandomState::new().hash_one(self.received);
            let Some(pause) = self.breaks.pause_after(&error, self.received, dice) else { return Err(error) };
            if self.last_byte.elapsed() + pause > NO_PROGRESS {
                return Err(error);
            }
            tracing::info!(
                digest = %self.digest, repository = %self.repository, received = self.received, ?pause,
                error = error.chain(), "a transfer broke, and goes on where it stopped"
            );
            tokio::time::sleep(pause).await;
            let rest = ByteRange::From { first: self.received, last: None };
            let rest = match self.received {
                0 => ByteRange::Full,
                _ => rest,
            };
            match self.upstream.blob(self.repository, self.digest, rest).await {
                Ok(answer) => match self.go_on(answer.content) {
                    Ok(()) => return Ok(true),
                    Err(other) => error = other,
                },
                // A transfer of unknown length that broke after its last byte.
                Err(refused) if self.size.is_none() && self.ends_here(&refused) => return Ok(false),
                Err(refused) => error = refused,
            }
        }
    }

    /// Reads on from an answer to the question for the rest.
    fn go_on(&mut self, rest: Blob) -> Result<(), SourceError> {
        let differs = |problem: String| {
            let attempted = format!("go on with blob {} of {}: {problem}", self.digest, self.repository);
            // It may be another server that answered: the next one may know the blob as it was begun.
            Err(SourceError::new(SourceErrorKind::Unavailable, attempted))
        };
        if let (Some(begun), Some(now)) = (self.size, rest.size)
            && begun != now
        {
            return differs(format!("it had {begun} bytes when it was begun, and has {now} now"));
        }
        self.skipping = match &rest.range {
            None if self.received == 0 => 0,
            None => {
                self.breaks.range_was_ignored();
                self.received
            }
            Some(range) if range.start == self.received => 0,
            Some(range) => return differs(format!("upstream sent bytes from {} on", range.start)),
        };
        self.body = rest.body.fuse();
        Ok(())
    }

    fn ends_here(&self, refused: &SourceError) -> bool {
        let size = std::error::Error::source(refused).and_then(|cause| cause.downcast_ref::<InvalidRange>());
        refused.kind() == SourceErrorKind::RangeNotSatisfiable
            && size.is_some_and(|range| range.size == self.received)
    }
}
