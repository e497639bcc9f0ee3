//! HTTP client for the provider, with kuik's own TLS and connections instead of a second HTTP library, and a limit on
//! every wait.

use std::{
    error::Error,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as TcpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use tokio::time::{Instant, Sleep, sleep};

/// Time limit for a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle timeout of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Creates clients with `timeout` for the response head, and for each read of its body.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) timeout: Duration,
}

#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<TcpConnector>, HttpRequestBody>,
    timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("no response within {0:?}")]
struct Stalled(Duration);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| object_store::Error::Generic { store: "HTTP client", source: Box::new(error) })?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(tls);
        Ok(HttpClient::new(Service { client, timeout: self.timeout }))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = tokio::time::timeout(self.timeout, self.client.request(request)).await;
        let response = answered
            .map_err(|_| HttpError::new(HttpErrorKind::Timeout, Stalled(self.timeout)))?
            .map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
            HttpError::new(kind, error)
        })?;
        let timeout = self.timeout;
        Ok(response
            .map(|body| HttpResponseBody::new(Moving { body, timeout, stalled: Box::pin(sleep(timeout)) })))
    }
}

/// A body with a timeout on each read.
struct Moving {
    body: Incoming,
    timeout: Duration,
    stalled: Pin<Box<Sleep>>,
}

impl Body for Moving {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                this.stalled.as_mut().reset(Instant::now() + this.timeout);
                let broken = |error: hyper::Error| HttpError::new(HttpErrorKind::Interrupted, error);
                Poll::Ready(frame.map(|frame| frame.map_err(broken)))
            }
            Poll::Pending => {
                ready!(this.stalled.as_mut().poll(context));
                let stalled: Box<dyn Error + Send + Sync> = Box::new(Stalled(this.timeout));
                Poll::Ready(Some(Err(HttpError::new_boxed(HttpErrorKind::Timeout, stalled))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
