//! HTTP/1.1 server for a tower service: several addresses, with or without TLS, and graceful shutdown.

pub mod admin;
mod bind;
pub mod request_log;
mod tls;

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

pub use bind::{BindAddress, BindError, InvalidBindAddress};
pub use tls::{OverTls, Tls, TlsMetrics, UnusableCertificate};

/// Timeout for receiving a request's head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a request's head. Hyper accepts at most 100 headers; tokens are the largest, a few KiB.
const HEAD_BYTES: usize = 64 << 10;

/// How long a client may stop reading while bytes wait for it. Container engines that unpack while they pull pause,
/// but not that long; a client that never resumes would hold its connection forever.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Pause after a failed accept: the usual cause is a lack of file descriptors, and only time frees one.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves `service` on `listeners` until `shutdown` ends; then stops accepting, lets running requests finish, and
/// returns.
///
/// Connections still open after `drain` are closed; returns how many.
pub async fn serve<S, B>(
    listeners: Vec<TcpListener>,
    service: S,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> usize
where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    serve_with(listeners, service, None, shutdown, drain).await
}

/// Like [`serve`], over TLS if given. Requests that came over TLS have the extension [`OverTls`].
pub async fn serve_with<S, B>(
    listeners: Vec<TcpListener>,
    service: S,
    tls: Option<Tls>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> usize
where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listeners) => match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection, retrying");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let (service, watcher, tls) = (service.clone(), graceful.watcher(), tls.clone());
        connections.spawn(async move {
            let Some(tls) = tls else {
                return serve_connection(with_write_timeout(stream), service, watcher).await;
            };
            match tls.accept(stream, with_write_timeout).await {
                Ok(stream) => serve_connection(stream, service.map_request(over_tls), watcher).await,
                Err(error) => tracing::debug!(%error, "TLS handshake failed"),
            }
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listeners);
    match tokio::time::timeout(drain, graceful.shutdown()).await {
        Ok(()) => 0,
        Err(_) => {
            while connections.try_join_next().is_some() {}
            let cut = connections.len();
            connections.shutdown().await;
            cut
        }
    }
}

/// Serves one connection until it ends, or until shutdown when no request is running.
async fn serve_connection<IO, S, B>(stream: IO, service: S, watcher: Watcher)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_header_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended early");
    }
}

fn over_tls(mut request: Request<Incoming>) -> Request<Incoming> {
    request.extensions_mut().insert(OverTls);
    request
}

/// Adds a write timeout to the stream, for clients that do not read.
fn with_write_timeout(stream: TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_STALL_TIMEOUT));
    Box::pin(stream)
}

/// Accepts the next connection on any of the listeners.
async fn accept(listeners: &[TcpListener]) -> io::Result<TcpStream> {
    let accepted = poll_fn(|cx| {
        for listener in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    });
    let (stream, _) = accepted.await?;
    // Small responses must not wait for larger ones. If setting the option fails, the connection is already closed.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
