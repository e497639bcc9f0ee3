//! Egress: direct connections to guarded addresses, or through a forward proxy.
//!
//! Proxies come from the configuration, so they may have any address and are not guarded. An `https` upstream is
//! reached through a `CONNECT` tunnel with TLS inside; a plain `http` one by an absolute-form request to the proxy.

use std::{
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{
            Connected, Connection, HttpConnector,
            dns::{GaiResolver, Name},
            proxy::Tunnel,
        },
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::{Service, ServiceExt as _};

use super::{
    BoxError,
    guard::{Guard, check_resolved},
};

/// Forward proxies, as in the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
///
/// Default: none. `Debug` prints no password.
#[derive(Clone, Default)]
pub struct ProxyConfig {
    /// The proxy for `http` upstreams: a URL, with user and password if needed.
    pub http: Option<String>,
    /// The proxy for `https` upstreams.
    pub https: Option<String>,
    /// Hosts contacted directly: names (with subdomains), addresses, networks, separated by commas; or `*`.
    pub no: String,
    /// Whether loopback upstreams use the proxy too. Usually they do not.
    pub loopback: bool,
}

/// An invalid proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {variable} proxy is not an http:// or https:// URL of a proxy")]
pub struct InvalidProxy {
    variable: &'static str,
}

impl ProxyConfig {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` from the environment, each in upper case or, if
    /// unset, in lower case.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Like [`from_env`](Self::from_env), with another source of variables.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |name: &str| {
            let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
            set(name).or_else(|| set(&name.to_ascii_lowercase()))
        };
        let all = first("ALL_PROXY");
        Self {
            http: first("HTTP_PROXY").or_else(|| all.clone()),
            https: first("HTTPS_PROXY").or(all),
            no: first("NO_PROXY").unwrap_or_default(),
            loopback: false,
        }
    }

    fn matcher(&self) -> Result<Matcher, InvalidProxy> {
        let checked = |proxy: &Option<String>, variable| {
            let Some(url) = proxy else { return Ok(String::new()) };
            let uri: Uri = url.parse().map_err(|_| InvalidProxy { variable })?;
            match uri.scheme_str() {
                None | Some("http" | "https") if uri.authority().is_some() => Ok(url.clone()),
                _ => Err(InvalidProxy { variable }),
            }
        };
        let http = checked(&self.http, "http")?;
        let https = checked(&self.https, "https")?;
        Ok(Matcher::builder().http(http).https(https).no(self.no.as_str()).build())
    }
}

impl fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |proxy: &Option<String>| {
            proxy.as_ref().map(|url| url.rsplit_once('@').map_or(url.clone(), |(_, host)| host.to_owned()))
        };
        f.debug_struct("ProxyConfig")
            .field("http", &host(&self.http))
            .field("https", &host(&self.https))
            .field("no", &self.no)
            .finish()
    }
}

/// Opens connections for the HTTP client; TLS to the upstream is layered on top.
#[derive(Clone)]
pub(crate) struct Egress {
    guard: Guard,
    proxies: Arc<Matcher>,
    proxy_loopback: bool,
    connect_to: Option<SocketAddr>,
    guarded: HttpConnector<GuardedResolver<GaiResolver>>,
    named: HttpConnector,
    to_proxy: HttpsConnector<HttpConnector>,
}

/// A connection, direct or through a proxy.
pub(crate) struct EgressStream {
    io: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Whether the peer is a proxy that needs absolute-form URLs.
    absolute: bool,
}

impl Egress {
    pub(crate) fn new(
        guard: Guard,
        proxy: &ProxyConfig,
        connect_to: Option<SocketAddr>,
        tls: rustls::ClientConfig,
    ) -> Result<Self, InvalidProxy> {
        let mut guarded = HttpConnector::new_with_resolver(GuardedResolver(GaiResolver::new()));
        let mut named = HttpConnector::new();
        guarded.enforce_http(false);
        guarded.set_nodelay(true);
        named.enforce_http(false);
        named.set_nodelay(true);
        Ok(Self {
            guard,
            proxies: Arc::new(proxy.matcher()?),
            proxy_loopback: proxy.loopback,
            connect_to,
            guarded,
            to_proxy: HttpsConnector::from((named.clone(), tls)),
            named,
        })
    }

    /// Returns the `Proxy-Authorization` of a request for the absolute `uri`; a tunnel has its own.
    pub(crate) fn proxy_authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme_str() != Some("http") || self.connect_to.is_some() || self.is_direct(uri) {
            return None;
        }
        self.proxies.intercept(uri)?.basic_auth().cloned()
    }

    fn is_direct(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let loopback = host.eq_ignore_ascii_case("localhost")
            || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        loopback && !self.proxy_loopback
    }

    async fn connect(self, uri: Uri) -> Result<EgressStream, BoxError> {
        // The client has checked the scheme; this checks the address, also of requests that bypass the client.
        self.guard.check(&uri, true)?;
        if let Some(address) = self.connect_to {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            return Ok(EgressStream { io: MaybeHttpsStream::Http(TokioIo::new(tcp)), absolute: false });
        }
        let proxy = if self.is_direct(&uri) { None } else { self.proxies.intercept(&uri) };
        let Some(proxy) = proxy else {
            let tcp = if self.guard.names(&uri) {
                self.named.oneshot(uri).await?
            } else {
                self.guarded.oneshot(uri).await?
            };
            return Ok(EgressStream { io: MaybeHttpsStream::Http(tcp), absolute: false });
        };
        if uri.scheme_str() != Some("https") {
            let io = self.to_proxy.oneshot(proxy.uri().clone()).await?;
            return Ok(EgressStream { io, absolute: true });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy);
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        Ok(EgressStream { io: tunnel.oneshot(uri).await?, absolute: false })
    }
}

impl Service<Uri> for Egress {
    type Response = EgressStream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<EgressStream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// Resolver that refuses names with forbidden addresses. The checked addresses are the ones connected to, so that DNS
/// rebinding has no effect.
#[derive(Clone)]
struct GuardedResolver<R>(R);

impl<R> Service<Name> for GuardedResolver<R>
where
    R: Service<Name, Response: Iterator<Item = SocketAddr>, Error: Into<BoxError>, Future: Send + 'static>,
{
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let host = name.as_str().to_owned();
        let resolving = self.0.call(name);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = resolving.await.map_err(Into::into)?.collect();
            // One forbidden address refuses the whole name: a mix suggests an attack.
            for address in &addresses {
                check_resolved(&host, address.ip())?;
            }
            Ok(addresses.into_iter())
        })
    }
}

impl Connection for EgressStream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.absolute)
    }
}

impl Read for EgressStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for EgressStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_variables_are_read_in_upper_and_lower_case() {
        let config = ProxyConfig::from_variables(|name| match name {
            "https_proxy" => Some("http://user:hunter2@proxy.example:3128".to_owned()),
            "ALL_PROXY" => Some("http://all.example:1".to_owned()),
            "NO_PROXY" => Some("internal.example".to_owned()),
            _ => None,
        });
        assert!(!format!("{config:?}").contains("hunter2"));
        let matcher = config.matcher().unwrap();
        let via = |uri: &str| matcher.intercept(&uri.parse().unwrap()).map(|proxy| proxy.uri().to_string());
        assert_eq!(via("https://registry.example/").as_deref(), Some("http://proxy.example:3128/"));
        assert_eq!(via("http://registry.example/").as_deref(), Some("http://all.example:1/"));
        assert_eq!(via("https://registry.internal.example/"), None);
    }

    /// A name server whose first answer is a public address; all others contain loopback.
    #[tokio::test]
    async fn resolved_addresses_are_checked_each_time() {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let rebinding = tower::service_fn(move |_: Name| {
            let first = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            let address = if first { "8.8.8.8:0" } else { "127.0.0.1:0" };
            let answer = vec!["9.9.9.9:0".parse::<SocketAddr>().unwrap(), address.parse().unwrap()];
            std::future::ready(Ok::<_, BoxError>(answer.into_iter()))
        });
        let mut resolver = GuardedResolver(rebinding);
        let mut resolve = async || resolver.call("rebinding.example".parse().unwrap()).await;
        assert_eq!(resolve().await.unwrap().count(), 2);
        let error = resolve().await.unwrap_err();
        assert!(error.is::<crate::client::Refused>(), "one bad address is enough: {error}");
    }

    #[test]
    fn unsupported_proxy_schemes_are_rejected() {
        for url in ["socks5://proxy.example:1080", "not a url", "http://"] {
            let config = ProxyConfig { https: Some(url.to_owned()), ..ProxyConfig::default() };
            assert!(config.matcher().is_err(), "{url}");
        }
    }
}
