//! A provider of one bucket: objects in memory, behind the protocol of one of the three.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

use super::{azure, identity, xml};

pub(crate) const BUCKET: &str = "images";
/// So few keys are listed at once that pages are needed.
pub(crate) const PAGE: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Google,
    Azure,
}

#[derive(Debug)]
pub(crate) struct Cloud {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) kind: Kind,
    pub(crate) objects: Mutex<BTreeMap<String, Object>>,
    /// Parts of objects that are not complete, by the upload and the part.
    pub(crate) parts: Mutex<BTreeMap<(String, String), Bytes>>,
    pub(crate) uploads: AtomicU64,
    pub(crate) handed_out: AtomicU64,
    pub(crate) tokens: Mutex<Vec<String>>,
    pub(crate) valid_for: Mutex<Duration>,
    refused: Mutex<Vec<String>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) content: Bytes,
    pub(crate) modified: Timestamp,
}

/// A decoded request.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Cloud {
    pub(crate) async fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            kind,
            objects: Mutex::default(),
            parts: Mutex::default(),
            uploads: AtomicU64::default(),
            handed_out: AtomicU64::default(),
            tokens: Mutex::default(),
            valid_for: Mutex::new(Duration::from_secs(3600)),
            refused: Mutex::default(),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                let service = service_fn(move |request| answer(state.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, state }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn scheme(&self) -> &'static str {
        match self.state.kind {
            Kind::S3 => "s3",
            Kind::Google => "gs",
            Kind::Azure => "az",
        }
    }

    /// How often credentials were handed out.
    pub(crate) fn credentials(&self) -> u64 {
        self.state.handed_out.load(Ordering::SeqCst)
    }

    /// How long they are good for, from now on.
    pub(crate) fn hand_out_for(&self, time: Duration) {
        *self.state.valid_for.lock().unwrap() = time;
    }

    /// The tokens of the workload that were shown, each time another one.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.state.tokens.lock().unwrap().clone()
    }

    /// Requests that were refused or are not implemented.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.state.refused.lock().unwrap().clone()
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(Response::new(Full::default())) };
    let asked = Asked {
        path: percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned(),
        parameters: parameters(parts.uri.query().unwrap_or_default()),
        method: parts.method,
        headers: parts.headers,
        body: body.to_bytes(),
    };
    let reply = identity::answer(&state, &asked).unwrap_or_else(|| {
        if !identity::opens(&state, &asked.headers) {
            return Reply::text(StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>");
        }
        match state.kind {
            Kind::S3 | Kind::Google => xml::answer(&state, &asked),
            Kind::Azure => azure::answer(&state, &asked),
        }
    });
    if reply.status.is_client_error() && reply.status != StatusCode::NOT_FOUND {
        let line = format!("{} {} {:?}: {}", asked.method, asked.path, asked.parameters, reply.status);
        state.refused.lock().unwrap().push(line);
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    // The answer to `HEAD` says the length of what it does not send.
    let body = match asked.method {
        Method::HEAD => {
            response = response.header(header::CONTENT_LENGTH, reply.body.len());
            Bytes::new()
        }
        _ => reply.body,
    };
    Ok(response.body(Full::new(body)).unwrap())
}

/// The parameters of a query or a form.
pub(crate) fn parameters(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

impl State {
    /// When what is handed out now expires.
    pub(crate) fn end(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::try_from(*self.valid_for.lock().unwrap()).unwrap()
    }

    /// Puts an object; returns false if it had to be new and exists.
    pub(crate) fn put(&self, key: &str, content: Bytes, new: bool) -> bool {
        let mut objects = self.objects.lock().unwrap();
        if new && objects.contains_key(key) {
            return false;
        }
        objects.insert(key.to_owned(), Object { content, modified: Timestamp::now() });
        true
    }

    /// Puts the parts of an upload together, in the order of `names`.
    pub(crate) fn complete(&self, key: &str, upload: &str, names: &[String]) {
        let mut parts = self.parts.lock().unwrap();
        let content: Vec<Bytes> = names
            .iter()
            .map(|name| parts.remove(&(upload.to_owned(), name.clone())).expect("a part that was sent"))
            .collect();
        self.put(key, content.concat().into(), false);
    }

    /// A page of the objects below `prefix`, from `start` on; and the key that the next page begins with.
    pub(crate) fn page(&self, prefix: &str, start: &str) -> (Vec<(String, Object)>, Option<String>) {
        let objects = self.objects.lock().unwrap();
        let mut found = objects
            .range(start.max(prefix).to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, object)| (key.clone(), object.clone()));
        let page: Vec<_> = found.by_ref().take(PAGE).collect();
        let next = found.next().map(|(key, _)| key);
        (page, next)
    }

    /// An object, or the part of it that `Range` asks for.
    pub(crate) fn read(&self, key: &str, range: Option<&str>) -> Reply {
        let found = self.objects.lock().unwrap().get(key).cloned();
        let Some(object) = found else {
            return Reply::text(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>");
        };
        let size = object.content.len();
        let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
            return Reply::new(StatusCode::OK, object.content.clone()).of(&object);
        };
        let (first, last) = range.split_once('-').unwrap();
        let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first, (last + 1).min(size)),
            (Ok(first), Err(_)) => (first, size),
            (Err(_), Ok(length)) => (size.saturating_sub(length), size),
            (Err(_), Err(_)) => (size, size),
        };
        if start >= end {
            return Reply::text(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "<Error><Code>InvalidRange</Code></Error>",
            );
        }
        Reply::new(StatusCode::PARTIAL_CONTENT, object.content.slice(start..end))
            .of(&object)
            .with("content-range", &format!("bytes {start}-{}/{size}", end - 1))
    }
}

impl Object {
    pub(crate) fn tag(&self) -> String {
        format!("\"{}-{}\"", self.modified.as_nanosecond(), self.content.len())
    }

    /// When it was put, as HTTP writes it.
    pub(crate) fn date(&self) -> String {
        rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&self.modified).unwrap()
    }
}

impl Asked {
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The key of the object; `None` where the bucket itself is asked.
    pub(crate) fn key(&self) -> Option<&str> {
        self.path.strip_prefix('/')?.strip_prefix(BUCKET)?.strip_prefix('/').filter(|key| !key.is_empty())
    }
}

impl Reply {
    pub(crate) fn new(status: StatusCode, body: Bytes) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    pub(crate) fn text(status: StatusCode, text: &str) -> Self {
        Self::new(status, Bytes::copy_from_slice(text.as_bytes()))
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Adds the headers of the object.
    pub(crate) fn of(self, object: &Object) -> Self {
        self.with("etag", &object.tag()).with("last-modified", &object.date())
    }
}
