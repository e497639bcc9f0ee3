//! Response body: empty, bytes in memory, or a streamed blob.

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
    accounts: [Option<Account>; 2],
    watch: Option<Watch>,
}

/// Callback for the end of a body, complete or not.
pub(crate) struct Watch {
    sent: u64,
    complete: bool,
    on_end: Option<Box<dyn FnOnce(u64, bool) + Send>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            on_end(self.sent, self.complete);
        }
    }
}

/// Accounting of a body: its bytes as they are sent, and its end, when it is dropped.
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
    /// An empty body.
    #[must_use]
    pub fn empty() -> Self {
        Self::from(Inner::Empty)
    }

    /// A body of these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::from(Inner::Full(bytes.into()))
    }

    /// A streamed body; `length` if it is known.
    #[must_use]
    pub fn stream(stream: BlobStream, length: Option<u64>) -> Self {
        Self::from(Inner::Stream { stream, remaining: length })
    }

    /// Counts the body in `account`.
    pub(crate) fn counted(mut self, account: Account) -> Self {
        let [inner, outer] = &mut self.accounts;
        let free = if inner.is_none() { inner } else { outer };
        *free = Some(account);
        self
    }

    /// Calls `on_end` at the body's end, with the number of bytes sent and whether it was complete.
    pub(crate) fn watched(self, on_end: impl FnOnce(u64, bool) + Send + 'static) -> Self {
        let complete = self.is_end_stream();
        Self { watch: Some(Watch { sent: 0, complete, on_end: Some(Box::new(on_end)) }), ..self }
    }
}

impl From<Inner> for ProxyBody {
    fn from(inner: Inner) -> Self {
        Self { inner, accounts: [None, None], watch: None }
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
                        tracing::debug!(error = error.chain(), "response body ended early");
                    }
                    None => {}
                }
                next
            }
        };
        if let Some(Ok(chunk)) = &chunk {
            for account in self.accounts.iter().flatten() {
                account.sent.inc_by(chunk.len() as u64);
            }
        }
        let complete = chunk.is_none() || self.is_end_stream();
        if let Some(watch) = &mut self.watch {
            watch.sent +=
                chunk.as_ref().and_then(|chunk| chunk.as_ref().ok()).map_or(0, |chunk| chunk.len() as u64);
            watch.complete = complete && !matches!(chunk, Some(Err(_)));
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
