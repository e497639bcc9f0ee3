//! HTTP/1.1 as bytes on a socket: what a client library would mend or refuse has to reach the server as it is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::PATIENCE;

/// How long one body may take: large ones go to many clients on a busy machine.
const BODY_PATIENCE: Duration = Duration::from_secs(600);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// An answer whose head has come.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) status: u16,
    pub(crate) head: String,
    stream: TcpStream,
    buffered: Vec<u8>,
}

/// A `GET`.
pub(crate) async fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, "GET", target).await
}

/// A `HEAD`.
pub(crate) async fn head(address: SocketAddr, target: &str) -> Answer {
    ask(address, "HEAD", target).await
}

/// Any request without a body.
pub(crate) async fn ask(address: SocketAddr, method: &str, target: &str) -> Answer {
    let transfer = Transfer::begin(address, method, target, "").await;
    transfer.answer().await
}

/// Connects over TLS to a server with a certificate for `localhost` signed by `root`.
pub(crate) async fn over_tls(address: SocketAddr, root: CertificateDer<'static>) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

impl Transfer {
    /// Sends a request, with `headers` (each ended by `\r\n`) as they are, and waits for the head of its answer.
    pub(crate) async fn begin(address: SocketAddr, method: &str, target: &str, headers: &str) -> Self {
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
        Self::raw(address, request.as_bytes()).await
    }

    /// Sends bytes, and waits for the head of an answer. An empty head is a connection that was closed.
    pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server that refuses early closes early: its answer counts, not that it did not read all.
        let _ = stream.write_all(request).await;
        let mut buffered = Vec::new();
        let end = loop {
            if let Some(end) = buffered.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let read = timeout(PATIENCE, stream.read_buf(&mut buffered)).await.expect("an answer in time");
            if matches!(read, Ok(0) | Err(_)) {
                break buffered.len();
            }
        };
        let body = buffered.split_off(end);
        let head = String::from_utf8_lossy(&buffered).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head, stream, buffered: body }
    }

    /// The rest of the answer.
    pub(crate) async fn answer(mut self) -> Answer {
        let mut body = self.buffered;
        let read = timeout(BODY_PATIENCE, self.stream.read_to_end(&mut body)).await;
        read.expect("the body ends in time").unwrap();
        Answer { status: self.status, head: self.head, body }
    }

    /// Reads the body, which must be exactly `expected`.
    ///
    /// # Errors
    /// Fails if the body differs, with the byte offset.
    pub(crate) async fn is(mut self, expected: &[u8]) -> Result<(), String> {
        if !matches!(self.status, 200 | 206) {
            return Err(format!("the answer is {}", self.head));
        }
        let mut rest = expected;
        let mut buffer = std::mem::take(&mut self.buffered);
        buffer.reserve(256 << 10);
        loop {
            let same = rest.get(..buffer.len()).is_some_and(|expected| expected == buffer);
            if !same {
                return Err(format!("it differs after byte {}", expected.len() - rest.len()));
            }
            rest = &rest[buffer.len()..];
            buffer.clear();
            let read = timeout(BODY_PATIENCE, self.stream.read_buf(&mut buffer)).await;
            match read.map_err(|_| "the body does not end".to_owned())? {
                Ok(0) if rest.is_empty() => return Ok(()),
                Ok(0) => return Err(format!("{} bytes are missing", rest.len())),
                Ok(_) => {}
                Err(error) => return Err(format!("{error}, and {} bytes are missing", rest.len())),
            }
        }
    }
}

impl Answer {
    /// Returns a header's value; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        found
            .map(|(key, value)| (key, value.trim()))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }

    /// Returns the code in an error body of the OCI distribution specification; empty if there is none.
    pub(crate) fn error_code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}
