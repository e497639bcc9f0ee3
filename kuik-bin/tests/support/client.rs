//! Keep-alive client for loads of many small requests. If the server is killed, it reports a lost response, and the outcome
//! of the request is unknown.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::PATIENCE;

/// A connection to a registry, made when it is needed.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
    requests: u64,
}

/// The connection ended before the whole answer had come.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) String);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, connection: None, requests: 0 }
    }

    /// How many requests were answered.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// Sends a request, and waits for its whole answer.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        target: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Reply, Lost> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .unwrap();
        let answer = timeout(PATIENCE, self.exchange(request)).await;
        let reply = answer.unwrap_or_else(|_| panic!("{target} is not answered")).map_err(Lost)?;
        self.requests += 1;
        Ok(reply)
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let said = |error: hyper::Error| format!("{error:?}");
        // It is kept only where the answer came whole.
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => connect(self.address).await?,
        };
        connection.ready().await.map_err(said)?;
        let (head, body) = connection.send_request(request).await.map_err(said)?.into_parts();
        let body = body.collect().await.map_err(said)?.to_bytes();
        self.connection = Some(connection);
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = timeout(Duration::from_secs(10), TcpStream::connect(address)).await;
    let stream =
        stream.map_err(|_| "no connection in time".to_owned())?.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

impl Reply {
    /// Returns a header's value; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Its body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
