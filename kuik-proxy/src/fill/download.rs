//! Resumable download: the bytes of one blob, in order and each once, across broken connections.
//!
//! A transfer that breaks is resumed at the offset reached, with a range request for the rest ([`resume`](super::resume)
//! decides how often). If an upstream ignores the range and sends everything, the bytes received before are skipped.
//! The rest may have another length, or other bytes under another entity tag: this module detects the length, the
//! digest of the whole detects the bytes, and neither is trusted otherwise.

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

/// Maximum number of bytes returned at once, if so many have arrived.
const BATCH_BYTES: usize = 1 << 20;

/// How long readers wait for the next byte, across all attempts.
const NO_PROGRESS: Duration = Duration::from_secs(75);

/// A blob being downloaded from upstream.
pub(super) struct Download<'a> {
    upstream: &'a dyn ContentSource,
    repository: &'a RepositoryName,
    digest: &'a Digest,
    size: Option<u64>,
    body: Fuse<BlobStream>,
    received: u64,
    last_byte: Instant,
    /// Number of bytes of `body` that were received before.
    skipping: u64,
    /// An error that followed the batch returned last.
    broken: Option<SourceError>,
    breaks: Breaks,
}

impl<'a> Download<'a> {
    /// Requests the blob from upstream, and waits for the response headers.
    ///
    /// # Errors
    /// Returns the upstream's errors.
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

    /// Returns the size that upstream announced, if it did.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Returns the bytes that have arrived, waiting for the first chunk only; `None` at the end.
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
            // Does not wait for bytes that have not arrived; the end of the stream is polled again.
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

    /// Requests the missing bytes, until they arrive. Returns `false` if none are missing.
    async fn resume(&mut self, mut error: SourceError) -> Result<bool, SourceError> {
        loop {
            let random = RandomState::new().hash_one(self.received);
            let Some(pause) = self.breaks.pause_after(&error, self.received, random) else {
                return Err(error);
            };
            if self.last_byte.elapsed() + pause > NO_PROGRESS {
                return Err(error);
            }
            tracing::info!(
                digest = %self.digest, repository = %self.repository, received = self.received, ?pause,
                error = error.chain(), "transfer interrupted, resuming"
            );
            tokio::time::sleep(pause).await;
            let rest = ByteRange::From { first: self.received, last: None };
            let rest = match self.received {
                0 => ByteRange::Full,
                _ => rest,
            };
            match self.upstream.blob(self.repository, self.digest, rest).await {
                Ok(answer) => match self.continue_with(answer.content) {
                    Ok(()) => return Ok(true),
                    Err(other) => error = other,
                },
                // A transfer of unknown length that broke after its last byte.
                Err(refused) if self.size.is_none() && self.ends_here(&refused) => return Ok(false),
                Err(refused) => error = refused,
            }
        }
    }

    /// Continues with the response to the request for the rest.
    fn continue_with(&mut self, rest: Blob) -> Result<(), SourceError> {
        let differs = |problem: String| {
            let attempted = format!("resume blob {} of {}: {problem}", self.digest, self.repository);
            // Another server may have answered: the next one may still have the blob as it was at the start.
            Err(SourceError::new(SourceErrorKind::Unavailable, attempted))
        };
        if let (Some(begun), Some(now)) = (self.size, rest.size)
            && begun != now
        {
            return differs(format!("it had {begun} bytes at the start, and has {now} now"));
        }
        self.skipping = match &rest.range {
            None if self.received == 0 => 0,
            None => {
                self.breaks.range_was_ignored();
                self.received
            }
            Some(range) if range.start == self.received => 0,
            Some(range) => return differs(format!("upstream sent bytes starting at {}", range.start)),
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
