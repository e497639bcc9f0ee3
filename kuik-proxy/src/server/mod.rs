//! Serves a tower service over HTTP/1.1 on several addresses, with TLS or without, and ends without cutting anybody off.

mod bind;
mod tls;

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
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

use crate::service::ProxyBody;

/// How long a client may take to send the head of a request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How large the head of a request may be. Hyper takes 100 headers at most; tokens are the largest, of a few KiB.
const HEAD_BYTES: usize = 64 << 10;

/// How long a client may stand still while bytes wait for it. Engines that unpack what they pull pause, but not so
/// long; and whoever does not come back would hold its connection for ever.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// How long to wait after a failed accept: the usual cause is that no file descriptor is left, and only time frees
/// one.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves `service` on `listeners` until `shutdown` ends; then accepts no more, lets the requests that are running
/// finish, and returns.
///
/// Connections that are still open after `drain` are cut; the answer says how many those were.
pub async fn serve<S>(
    listeners: Vec<TcpListener>,
    service: S,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> usize
where
    S: tower::Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    serve_with(listeners, service, None, shutdown, drain).await
}

/// [`serve`], over TLS where it is given. A request that came over it has the extension [`OverTls`].
pub async fn serve_with<S>(
    listeners: Vec<TcpListener>,
    service: S,
    tls: Option<Tls>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> usize
where
    S: tower::Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
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
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let (service, watcher, tls) = (service.clone(), graceful.watcher(), tls.clone());
        connections.spawn(async move {
            let Some(tls) = tls else { return talk(patient(stream), service, watcher).await };
            match tls.accept(stream, patient).await {
                Ok(stream) => talk(stream, service.map_request(over_tls), watcher).await,
                Err(error) => tracing::debug!(%error, "a connection without TLS"),
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

/// Answers the requests of one connection until it ends, or the server is to stop and no request is running.
async fn talk<IO, S>(stream: IO, service: S, watcher: Watcher)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    S: tower::Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible> + Clone,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_header_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn over_tls(mut request: Request<Incoming>) -> Request<Incoming> {
    request.extensions_mut().insert(OverTls);
    request
}

/// The stream, with an end to waiting for a client that does not read.
fn patient(stream: TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_STALL_TIMEOUT));
    Box::pin(stream)
}

/// The next connection on any of the listeners.
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
    // A small answer is not to wait for a larger one. Where the option cannot be set the connection is gone anyway.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
