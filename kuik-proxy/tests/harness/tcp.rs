//! Service on a loopback port, and a client that shows exactly what arrived over the connection.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kuik_proxy::{serve::serve, service::ProxyBody};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

use super::{error_code, text};

/// A service that is served until this is dropped.
pub(crate) struct OverTcp {
    pub(crate) address: SocketAddr,
    _stop: oneshot::Sender<()>,
    _serving: JoinHandle<usize>,
}

/// A response as seen by a client on a connection.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The received part of the body.
    pub(crate) body: Bytes,
    /// Whether the body was complete, as far as the connection can tell.
    pub(crate) complete: bool,
}

impl OverTcp {
    pub(crate) async fn start<S>(service: S) -> Self
    where
        S: tower::Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(serve(vec![listener], service, shutdown, Duration::ZERO));
        Self { address, _stop: stop, _serving: serving }
    }

    /// Sends a request on a new connection.
    pub(crate) async fn ask(&self, method: Method, path: &str) -> Seen {
        self.send(method, path, &[], Bytes::new()).await
    }

    /// Sends a request on a new connection, with headers and a body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Seen {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let (parts, mut body) = sender.send_request(request).await.unwrap().into_parts();
        let mut seen = BytesMut::new();
        let mut complete = true;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => seen.extend(frame.into_data().ok()),
                Err(_) => {
                    complete = false;
                    break;
                }
            }
        }
        drop((sender, body));
        let _ = connection.await;
        Seen { status: parts.status, headers: parts.headers, body: seen.freeze(), complete }
    }
}

impl Seen {
    /// Value of a header; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }

    /// Error code of the specification in an error body.
    pub(crate) fn code(&self) -> String {
        error_code(&self.body)
    }
}
