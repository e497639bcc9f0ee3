//! Mock cloud on one local port: all services, distinguished by host name.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kuik_core::client::{Body, BoxError, Guard, HttpTransport, RegistryTransport, TransportConfig};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tower::{Service as _, ServiceExt as _};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A status and a body.
pub(crate) struct Reply(pub(crate) u16, pub(crate) String);

impl Reply {
    pub(crate) fn ok(body: &str) -> Self {
        Self(200, body.to_owned())
    }
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The host name of the service.
    pub(crate) fn host(&self) -> &str {
        self.header("host")
    }
}

pub(crate) struct Cloud {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Cloud {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept) = (Arc::new(answer), Arc::clone(&log));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let asked = Asked {
                            method: parts.method.to_string(),
                            path: parts.uri.path().to_owned(),
                            query: parts.uri.query().unwrap_or_default().to_owned(),
                            headers: parts.headers,
                            body: String::from_utf8(body.to_vec()).unwrap(),
                        };
                        kept.lock().unwrap().push(asked.clone());
                        let Reply(status, body) = answer(&asked);
                        let response = Response::builder().status(status).header("location", "/elsewhere");
                        Ok::<_, hyper::Error>(response.body(Full::new(Bytes::from(body))).unwrap())
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, log }
    }

    /// URL of the services that are contacted by address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// Carries requests for `https://` anything to this port, with the requested host name.
    pub(crate) fn transport(&self) -> impl RegistryTransport + use<> {
        let mut config = TransportConfig::default();
        config.guard = Guard::default().naming(self.address.to_string().parse().unwrap(), true);
        config.system_roots = false;
        let transport = HttpTransport::new(config).unwrap();
        let address = self.address;
        tower::service_fn(move |mut request: Request<Body>| {
            let mut transport = transport.clone();
            async move {
                let uri = request.uri().clone();
                assert_eq!(uri.scheme_str(), Some("https"), "{uri}");
                let host = uri.authority().unwrap().as_str().parse().unwrap();
                request.headers_mut().insert(HOST, host);
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() = format!("http://{address}{path}").parse::<Uri>()?;
                transport.ready().await?.call(request).await as Result<_, BoxError>
            }
        })
    }
}

pub(crate) fn environment(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let all: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    move |name| all.get(name).cloned()
}

/// The fields of a form or a query.
pub(crate) fn form(text: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let fields = text.split('&').map(|field| field.split_once('=').unwrap());
    fields.map(|(name, value)| (decode(name), decode(value))).collect()
}

/// Returns whether the signature of a request is valid, computed from what arrived, as AWS does (Signature Version 4), and with
/// an HMAC of our own on top of SHA-256.
pub(crate) fn signed_for(request: &Asked, secret: &str, region: &str, service: &str) -> bool {
    let authorization = request.header("authorization");
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").unwrap();
    let part = |name: &str| {
        rest.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).unwrap().to_owned()
    };
    let signed = part("SignedHeaders");
    for needed in ["host", "x-amz-date", "x-amz-target"] {
        assert!(signed.split(';').any(|name| name == needed), "{signed}");
    }
    let headers: String =
        signed.split(';').map(|name| format!("{name}:{}\n", request.header(name).trim())).collect();
    let canonical = [
        &request.method,
        &request.path,
        &request.query,
        &headers,
        &signed,
        &hex(&Sha256::digest(request.body.as_bytes())),
    ]
    .map(String::as_str)
    .join("\n");
    let at = request.header("x-amz-date");
    let scope = format!("{}/{region}/{service}/aws4_request", &at[..8]);
    assert!(part("Credential").ends_with(&format!("/{scope}")), "{authorization}");
    let to_sign = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
    let key = hmac(format!("AWS4{secret}").as_bytes(), &at.as_bytes()[..8]);
    let key = hmac(&hmac(&hmac(&key, region.as_bytes()), service.as_bytes()), b"aws4_request");
    hex(&hmac(&key, to_sign.as_bytes())) == part("Signature")
}

/// RFC 2104; the keys here are shorter than a block.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = block.map(|byte| byte ^ 0x36);
    let outer = block.map(|byte| byte ^ 0x5c);
    let inner = Sha256::digest([&inner[..], message].concat());
    Sha256::digest([&outer[..], &inner[..]].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
