//! Reads bodies: small ones whole and bounded, blobs as a stream that notices when nothing comes any more.

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

use super::transport::Body;
use crate::content::{BlobStream, SourceError, SourceErrorKind};

/// How much of a body that nobody wants is read, so that its connection can be used again.
const MAX_DISCARDED: usize = 64 * 1024;

/// Reads a body of at most `limit` bytes, whole, within `time`.
pub(super) async fn read(what: &str, body: Body, limit: usize, time: Duration) -> Result<Bytes, SourceError> {
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
            format!("{what}: the answer broke off"),
            cause,
        )),
        Err(_) => {
            Err(error(SourceErrorKind::TimedOut, format_args!("the answer did not end within {time:?}")))
        }
    }
}

/// Reads the beginning of a body, as much as there is of it within `time`: for the text of an error.
pub(super) async fn read_some(mut body: Body, limit: usize, time: Duration) -> Bytes {
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
    // What arrived in time is enough.
    let _ = timeout(time, reading).await;
    some.freeze()
}

/// Reads a short body away, so that its connection can be used again; gives up on a long one.
pub(super) async fn discard(body: Body, time: Duration) {
    let time = time.min(Duration::from_secs(1));
    if !body.is_end_stream() && body.size_hint().lower() <= MAX_DISCARDED as u64 {
        let _ = timeout(time, Limited::new(body, MAX_DISCARDED).collect()).await;
    }
}

/// The stream of a blob: `expected` bytes where that is known, with never more than `stall` between two frames.
pub(super) fn stream(what: String, body: Body, expected: Option<u64>, stall: Duration) -> BlobStream {
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
    /// Whether the timer runs: only while the body has been asked and has nothing.
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
                        format!("{}: it broke off after {} bytes", self.what, self.received),
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
                    let problem = format_args!("nothing came for {stall:?} after {received} bytes");
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
        Some(Err(self.error(
            SourceErrorKind::Unavailable,
            format_args!("it ended after {received} of {expected} bytes"),
        )))
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
