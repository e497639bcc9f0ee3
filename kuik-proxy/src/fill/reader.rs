//! Reader of a fill: a stream of the requested bytes as they become readable.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use kuik_core::content::{BlobStream, SourceError, SourceErrorKind};
use tokio::sync::watch;

use super::{
    Fill,
    progress::{self, Next, Progress},
    range_prefetch,
    window::Position,
};

/// Streams the bytes from `start` to `end`, or to the end of the blob, for the reader at `position`.
pub(super) fn stream(fill: Arc<Fill>, position: Position, start: u64, end: Option<u64>) -> BlobStream {
    position.advance_to(start);
    let reader = Reader { progress: fill.progress.subscribe(), fill, position, end, may_prefetch: true };
    Box::pin(stream::try_unfold(reader, async |mut reader| {
        let chunk = reader.next().await?;
        Ok(chunk.map(|chunk| (chunk, reader)))
    }))
}

struct Reader {
    fill: Arc<Fill>,
    progress: watch::Receiver<Progress>,
    position: Position,
    end: Option<u64>,
    /// Whether ranges far ahead of the fill may be prefetched.
    may_prefetch: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let offset = self.position.get();
        let chunk = match self.prefetch(offset).await {
            Some(chunk) => chunk,
            None => match self.wait(offset).await? {
                Next::Done | Next::Wait => return Ok(None),
                Next::Fail(error) => return Err(error),
                Next::Read { end } => self.read(offset, end).await?,
            },
        };
        self.position.advance_to(offset + chunk.len() as u64);
        Ok(Some(chunk))
    }

    /// Returns the next bytes by range prefetch, if they are far ahead of the fill.
    async fn prefetch(&mut self, offset: u64) -> Option<Bytes> {
        let end = self.end.filter(|_| self.may_prefetch)?;
        let (held_from, received) = {
            let now = self.progress.borrow();
            now.size()?;
            (now.held_from(), now.received)
        };
        if offset >= end || !range_prefetch::is_for(&(offset..end), received, held_from) {
            return None;
        }
        let upstream = range_prefetch::Upstream {
            source: &self.fill.upstream,
            repository: &self.fill.fetched_from,
            digest: &self.fill.digest,
            held_from,
            tasks: &self.fill.tasks,
        };
        let mut progress = self.progress.clone();
        let caught_up = progress.wait_for(|now| !matches!(now.next(offset, Some(end)), Next::Wait));
        let chunk = tokio::select! {
            chunk = self.fill.prefetch.read(&upstream, offset) => chunk,
            // The fill was quicker, or has failed.
            _ = caught_up => return None,
        };
        self.may_prefetch = chunk.is_some();
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX);
        chunk.map(|chunk| chunk.slice(..wanted.min(chunk.len())))
    }

    /// The newest bytes are in the window; those that have left it are in the spool.
    async fn read(&self, offset: u64, end: u64) -> Result<Bytes, SourceError> {
        if let Some(chunk) = self.fill.window.read(offset, end) {
            return Ok(chunk);
        }
        // Bytes leave the window after they were counted as spooled, so this value is not stale.
        let spooled = self.fill.progress.borrow().spooled;
        match self.fill.spool.get() {
            Some(spool) if offset < spooled => spool.read(offset, end.min(spooled)).await,
            _ => Err(self.left_behind()),
        }
    }

    /// Returns the next step at `offset`, once it is not to wait.
    async fn wait(&mut self, offset: u64) -> Result<Next, SourceError> {
        let mut next = Next::Wait;
        let decide = |progress: &Progress| {
            next = progress.next(offset, self.end);
            !matches!(next, Next::Wait)
        };
        match self.progress.wait_for(decide).await {
            Ok(_) => Ok(next),
            Err(_) => Err(progress::abandoned(&self.fill.digest)),
        }
    }

    fn left_behind(&self) -> SourceError {
        SourceError::new(
            SourceErrorKind::Storage,
            format!(
                "read blob {} while it fills: the store cannot store it, and this reader was too slow",
                self.fill.digest
            ),
        )
    }
}
