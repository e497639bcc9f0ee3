//! What carries requests: any tower service of our own body type, so that tests and embedders can bring theirs.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};

use super::hosts::Receiving;

/// Any error, as transports give them.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A service that sends one request and answers with its response: redirects are not followed, no header is added
/// but what HTTP itself needs, and dropping the future abandons the request.
///
/// Every fitting tower service is one; [`super::HttpTransport`] is the one over TCP and TLS.
pub trait RegistryTransport:
    Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> RegistryTransport for T where
    T: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A transport whose type is forgotten, so that the client has no type parameter.
pub(crate) type AnyTransport = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

pub(crate) fn erase(transport: impl RegistryTransport) -> AnyTransport {
    BoxCloneSyncService::new(transport.map_err(Into::into))
}

/// The body of a request or a response.
pub struct Body(UnsyncBoxBody<Bytes, BoxError>);

impl Body {
    /// A body of no bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Empty::new())
    }

    /// Another body, under this type.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }
}

impl Body {
    /// The same, which counts what is received and holds its place at its host until it is dropped.
    pub(super) fn held_by(self, receiving: Receiving) -> Self {
        Self(UnsyncBoxBody::new(Held { body: self.0, receiving }))
    }
}

struct Held {
    body: UnsyncBoxBody<Bytes, BoxError>,
    receiving: Receiving,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.receiving.count(frame.data_ref().map_or(0, Bytes::len));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::new(Full::new(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size_hint", &self.0.size_hint()).finish()
    }
}
