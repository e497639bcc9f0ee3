//! The body of a response: nothing, bytes that are at hand, or a blob as it arrives.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use kuik_core::content::{BlobStream, SourceError};
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

/// The body of a response. An error in it ends the connection: the client sees a broken transfer.
pub struct ProxyBody {
    inner: Inner,
    account: Option<Account>,
}

/// Where a body is counted: its bytes as they go out, and its end, which is when it is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) sent: Counter,
    pub(crate) until_end: Histogram,
    pub(crate) began: Instant,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.until_end.observe(self.began.elapsed().as_secs_f64());
    }
}

enum Inner {
    Empty,
    Full(Bytes),
    Stream { stream: BlobStream, remaining: Option<u64> },
}

impl ProxyBody {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::from(Inner::Empty)
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::from(Inner::Full(bytes.into()))
    }

    /// The bytes of a stream; `length` where it is known how many they are.
    #[must_use]
    pub fn stream(stream: BlobStream, length: Option<u64>) -> Self {
        Self::from(Inner::Stream { stream, remaining: length })
    }

    /// The same, which is counted.
    pub(crate) fn counted(self, account: Account) -> Self {
        Self { account: Some(account), ..self }
    }
}

impl From<Inner> for ProxyBody {
    fn from(inner: Inner) -> Self {
        Self { inner, account: None }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        let chunk = match &mut self.inner {
            Inner::Empty => None,
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.inner = Inner::Empty;
                (!bytes.is_empty()).then_some(Ok(bytes))
            }
            Inner::Stream { stream, remaining } => {
                let next = std::task::ready!(stream.as_mut().poll_next(cx));
                match &next {
                    Some(Ok(chunk)) => {
                        *remaining = remaining.map(|bytes| bytes.saturating_sub(chunk.len() as u64));
                    }
                    Some(Err(error)) => {
                        tracing::debug!(error = error.chain(), "a response ends before its end");
                    }
                    None => {}
                }
                next
            }
        };
        if let (Some(Ok(chunk)), Some(account)) = (&chunk, &self.account) {
            account.sent.inc_by(chunk.len() as u64);
        }
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Stream { remaining, .. } => *remaining == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream { remaining: Some(bytes), .. } => SizeHint::with_exact(*bytes),
            Inner::Stream { remaining: None, .. } => SizeHint::default(),
        }
    }
}

impl fmt::Debug for ProxyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}
