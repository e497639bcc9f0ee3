//! Body readers: small bodies whole and size-limited, blobs as a stream with a stall timeout.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::Body;
use crate::content::{BlobStream, SourceError, SourceErrorKind};

/// How many bytes of an unneeded body are read, so that its connection can be reused.
const MAX_DISCARDED: usize = 64 * 1024;

/// Reads a body of at most `limit` bytes within `time`.
pub(crate) async fn read(what: &str, body: Body, limit: usize, time: Duration) -> Result<Bytes, SourceError> {
    let error = |kind, problem: fmt::Arguments<'_>| SourceError::new(kind, format!("{what}: {problem}"));
    let too_large = || error(SourceErrorKind::InvalidContent, format_args!("more than {limit} bytes"));
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match timeout(time, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(cause)) => Err(SourceError::caused_by(
            SourceErrorKind::Unavailable,
            format!("{what}: the response body was aborted"),
            cause,
        )),
        Err(_) => Err(error(
            SourceErrorKind::TimedOut,
            format_args!("the response body did not end within {time:?}"),
        )),
    }
}

/// Reads the start of a body, as much as arrives within `time`: for the text of an error.
pub(crate) async fn read_some(mut body: Body, limit: usize, time: Duration) -> Bytes {
    let mut some = BytesMut::new();
    let reading = async {
        while some.len() < limit {
            match body.frame().await {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let room = limit - some.len();
                    some.extend_from_slice(data.get(..room).unwrap_or(&data));
                }
                _ => break,
            }
        }
    };
    // A partial text is enough.
    let _ = timeout(time, reading).await;
    some.freeze()
}

/// Drains a short body so that its connection can be reused; gives up on a long one.
pub(crate) async fn discard(body: Body, time: Duration) {
    let time = time.min(Duration::from_secs(1));
    if !body.is_end_stream() && body.size_hint().lower() <= MAX_DISCARDED as u64 {
        let _ = timeout(time, Limited::new(body, MAX_DISCARDED).collect()).await;
    }
}

/// Returns the stream of a blob: `expected` bytes if known, with at most `stall` between two frames.
pub(crate) fn stream(what: String, body: Body, expected: Option<u64>, stall: Duration) -> BlobStream {
    let stalled = Box::pin(sleep(stall));
    Frames { what, body, expected, received: 0, stall, stalled, waiting: false, ended: false }.boxed()
}

struct Frames {
    what: String,
    body: Body,
    expected: Option<u64>,
    received: u64,
    stall: Duration,
    stalled: Pin<Box<Sleep>>,
    /// Whether the timer runs: only while a poll of the body is pending.
    waiting: bool,
    ended: bool,
}

impl Frames {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SourceError>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.waiting = false;
                    match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Poll::Ready(Some(self.count(data))),
                        _ => {}
                    }
                }
                Poll::Ready(Some(Err(cause))) => {
                    return Poll::Ready(Some(Err(SourceError::caused_by(
                        SourceErrorKind::Unavailable,
                        format!("{}: aborted after {} bytes", self.what, self.received),
                        cause,
                    ))));
                }
                Poll::Ready(None) => return Poll::Ready(self.end()),
                Poll::Pending => {
                    if !self.waiting {
                        self.waiting = true;
                        self.stalled.as_mut().reset(Instant::now() + self.stall);
                    }
                    ready!(self.stalled.as_mut().poll(cx));
                    let (stall, received) = (self.stall, self.received);
                    let problem = format_args!("no data for {stall:?} after {received} bytes");
                    return Poll::Ready(Some(Err(self.error(SourceErrorKind::TimedOut, problem))));
                }
            }
        }
    }

    fn count(&mut self, data: Bytes) -> Result<Bytes, SourceError> {
        self.received += data.len() as u64;
        match self.expected {
            Some(expected) if self.received > expected => Err(self.error(
                SourceErrorKind::InvalidContent,
                format_args!("more than the {expected} bytes announced"),
            )),
            _ => Ok(data),
        }
    }

    fn end(&self) -> Option<Result<Bytes, SourceError>> {
        let expected = self.expected.filter(|&expected| self.received < expected)?;
        let received = self.received;
        Some(Err(self
            .error(SourceErrorKind::Unavailable, format_args!("ended after {received} of {expected} bytes"))))
    }

    fn error(&self, kind: SourceErrorKind, problem: fmt::Arguments<'_>) -> SourceError {
        SourceError::new(kind, format!("{}: {problem}", self.what))
    }
}

impl Stream for Frames {
    type Item = Result<Bytes, SourceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_data(cx));
        self.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}
