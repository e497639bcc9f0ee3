//! HTTP transport: any tower service with this module's body type, so that tests and embedders can supply their own.

pub(super) mod body;
pub(super) mod connect;
pub(super) mod egress;
pub(super) mod guard;
pub(super) mod host_port;
pub(super) mod insecure;
pub(super) mod redirect;
pub(super) mod sender;
mod verifier;

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

use super::hosts::BodyPermit;

/// The error type of transports.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A service that sends one request and returns its response: it follows no redirects, adds only the headers that HTTP
/// needs, and cancels the request when the future is dropped.
///
/// Every matching tower service is one; [`super::HttpTransport`] is the one over TCP and TLS.
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

/// A type-erased transport, so that the client has no type parameter.
pub(crate) type AnyTransport = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

pub(crate) fn erase(transport: impl RegistryTransport) -> AnyTransport {
    BoxCloneSyncService::new(transport.map_err(Into::into))
}

/// The body of a request or a response.
pub struct Body(UnsyncBoxBody<Bytes, BoxError>);

impl Body {
    /// Returns an empty body.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Empty::new())
    }

    /// Wraps another body.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }
}

impl Body {
    /// Counts received bytes and holds the host's permit until the body is dropped.
    pub(super) fn with_permit(self, permit: BodyPermit) -> Self {
        Self(UnsyncBoxBody::new(CountedBody { body: self.0, permit }))
    }
}

struct CountedBody {
    body: UnsyncBoxBody<Bytes, BoxError>,
    permit: BodyPermit,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.permit.count(frame.data_ref().map_or(0, Bytes::len));
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
