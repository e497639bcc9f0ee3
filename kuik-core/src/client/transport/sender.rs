//! Sends one request and follows redirects, within its deadline.
//!
//! Redirects are followed here and not by the transport: their targets are guarded like any upstream, and credentials
//! are never sent to another scheme, host or port than they are meant for.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, LOCATION, USER_AGENT},
};
use tokio::time::{Instant, timeout};
use tower::ServiceExt as _;

use super::{
    AnyTransport, Body, BoxError, body,
    connect::ConnectTimedOut,
    guard::{Guard, Refused},
    host_port::port_of,
    redirect,
};
use crate::{
    client::hosts::{Hosts, RateLimitKey},
    content::{SourceError, SourceErrorKind},
    error::causes,
    trace::{REQUEST_ID, RequestContext, TRACEPARENT},
};

/// The maximum number of redirects.
const MAX_REDIRECTS: usize = 5;

/// A request with less time than this does not count against the breaker.
const MIN_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) const AGENT: HeaderValue = HeaderValue::from_static(concat!("kuik/", env!("CARGO_PKG_VERSION")));

/// Timeouts. Every wait of the client is bounded by one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To resolve, connect and complete the TLS handshake: 5 s.
    pub connect: Duration,
    /// From sending a request to the headers of its response, including connecting: 15 s.
    pub headers: Duration,
    /// For a whole operation until the response headers, including authentication, redirects and fallbacks: 18 s, so
    /// that a puller that times out after 20 s gets a response.
    pub answer: Duration,
    /// Between two frames of a body, and for the whole of a small one (manifests, tokens, errors): 30 s.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            headers: Duration::from_secs(15),
            answer: Duration::from_secs(18),
            stall: Duration::from_secs(30),
        }
    }
}

/// Sends requests through the transport, with guard, timeouts and host limits.
#[derive(Debug)]
pub(crate) struct HttpSender {
    pub(crate) transport: AnyTransport,
    pub(crate) guard: Guard,
    pub(crate) timeouts: Timeouts,
    pub(crate) hosts: Hosts,
}

/// A request that can be replayed, and its description for errors.
#[derive(Debug, Clone)]
pub(crate) struct RegistryRequest {
    /// "GET manifest library/nginx:latest from <https://registry-1.docker.io>".
    pub(crate) what: String,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether registries count it as a pull: a `GET` of a manifest.
    pub(crate) is_pull: bool,
    /// The account of the request; empty for anonymous.
    pub(crate) account: Arc<str>,
    /// The request context to propagate, if the upstream should receive it.
    pub(crate) context: Option<RequestContext>,
    /// When the response headers must have arrived.
    pub(crate) deadline: Instant,
    /// Whether plain HTTP is allowed because the origin is allowed it.
    pub(crate) over_http: bool,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    /// Whether it came from another host after a redirect.
    pub(crate) redirected: bool,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns whether the credential was refused (401 or 403).
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }
}

impl RegistryRequest {
    /// Returns the request on behalf of another account.
    pub(crate) fn on_behalf_of(&self, account: Arc<str>) -> Self {
        Self { account, ..self.clone() }
    }

    pub(crate) fn error(&self, kind: SourceErrorKind, problem: impl fmt::Display) -> SourceError {
        SourceError::new(kind, format!("{}: {problem}", self.what))
    }
}

impl HttpSender {
    /// Sends the request, with `authorization` until a redirect leaves its origin.
    pub(crate) async fn send(
        &self,
        request: &RegistryRequest,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, SourceError> {
        let mut uri = request.uri.clone();
        let mut authorization = authorization;
        let mut over_http = request.over_http;
        let mut redirected = false;
        for _ in 0..=MAX_REDIRECTS {
            self.guard.check(&uri, over_http).map_err(|refused| forbidden(request, refused))?;
            let response = self.send_once(request, &uri, authorization, redirected).await?;
            if !redirect::is_redirect(response.status()) {
                return Ok(Answer { response, redirected });
            }
            let next = response
                .headers()
                .get(LOCATION)
                .and_then(|location| redirect::target(&uri, location.as_bytes()))
                .ok_or_else(|| {
                    request.error(SourceErrorKind::InvalidContent, "redirect without a valid Location")
                })?;
            body::discard(response.into_body(), self.timeouts.stall).await;
            if !same_origin(&uri, &next) {
                if !request.body.is_empty() {
                    // The body may contain a credential.
                    return Err(request.error(
                        SourceErrorKind::InvalidContent,
                        "redirect of a http_request with a body to another host",
                    ));
                }
                authorization = None;
                redirected = true;
            }
            // Plain HTTP was allowed for this origin only; another one has to be configured itself.
            over_http = over_http && same_origin(&uri, &next);
            uri = next;
        }
        Err(request
            .error(SourceErrorKind::InvalidContent, format_args!("more than {MAX_REDIRECTS} redirects")))
    }

    async fn send_once(
        &self,
        request: &RegistryRequest,
        uri: &Uri,
        authorization: Option<&HeaderValue>,
        redirected: bool,
    ) -> Result<Response<Body>, SourceError> {
        let key = if redirected {
            RateLimitKey { account: Arc::default(), is_pull: false }
        } else {
            RateLimitKey { account: request.account.clone(), is_pull: request.is_pull }
        };
        let timing = RequestTiming {
            context: RequestContext::current(),
            wall: SystemTime::now(),
            clock: Instant::now(),
        };
        let host = self.hosts.of(uri);
        let permit = host.admit(&request.what, key, request.deadline).await?;
        let body = if request.body.is_empty() { Body::empty() } else { Body::from(request.body.clone()) };
        let mut http_request = Request::new(body);
        *http_request.method_mut() = request.method.clone();
        *http_request.uri_mut() = uri.clone();
        *http_request.headers_mut() = request.headers.clone();
        http_request.headers_mut().insert(USER_AGENT, AGENT);
        if let Some(context) = request.context.as_ref().filter(|_| !redirected) {
            let headers = [(REQUEST_ID, context.id().to_owned()), (TRACEPARENT, context.traceparent())];
            http_request.headers_mut().extend(headers.into_iter().filter_map(|(name, value)| {
                Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
            }));
        }
        if let Some(authorization) = authorization {
            let mut authorization = authorization.clone();
            authorization.set_sensitive(true);
            http_request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        let left = request.deadline.saturating_duration_since(Instant::now());
        let limit = self.timeouts.headers.min(left);
        let error = match timeout(limit, self.transport.clone().oneshot(http_request)).await {
            Ok(Ok(response)) => {
                timing.record(request, uri, Some(response.status()));
                let body_permit = self.hosts.answered(permit, response.status(), response.headers());
                return Ok(response.map(|body| body.with_permit(body_permit)));
            }
            Ok(Err(error)) => failed(request, error),
            Err(_) => request.error(SourceErrorKind::TimedOut, "timed out waiting for a response"),
        };
        timing.record(request, uri, None);
        // Requests with less than `MIN_PATIENCE` left do not count against the breaker.
        permit.failed(&error, limit >= MIN_PATIENCE.min(self.timeouts.headers));
        Err(error)
    }
}

/// When a request was sent, and for which client request.
struct RequestTiming {
    context: Option<RequestContext>,
    wall: SystemTime,
    clock: Instant,
}

impl RequestTiming {
    /// Adds a span to the trace. It names only the host: a path may be signed.
    fn record(&self, request: &RegistryRequest, uri: &Uri, status: Option<StatusCode>) {
        let Some(context) = self.context.as_ref().filter(|context| context.is_recorded()) else { return };
        let host = uri.host().unwrap_or_default();
        let mut attributes =
            vec![("http.request.method", request.method.to_string()), ("server.address", host.to_owned())];
        attributes.extend(status.map(|status| ("http.response.status_code", status.as_u16().to_string())));
        let failed = status.is_none_or(|status| status.is_server_error());
        let name = format!("{} {host}", request.method);
        context.record_asked(name, self.wall, self.clock.elapsed(), failed, attributes);
    }
}

pub(crate) fn forbidden(request: &RegistryRequest, refused: Refused) -> SourceError {
    SourceError::caused_by(SourceErrorKind::Forbidden, request.what.clone(), refused)
}

/// Converts a transport error, by its root causes.
pub(crate) fn failed(request: &RegistryRequest, error: BoxError) -> SourceError {
    let mut kind = SourceErrorKind::Unavailable;
    for below in causes(&*error) {
        if below.is::<Refused>() {
            kind = SourceErrorKind::Forbidden;
        } else if below.is::<ConnectTimedOut>()
            || below
                .downcast_ref()
                .is_some_and(|io: &std::io::Error| io.kind() == std::io::ErrorKind::TimedOut)
        {
            kind = SourceErrorKind::TimedOut;
        }
    }
    let failed = SourceError::caused_by(kind, request.what.clone(), error);
    // A refusal by the guard does not count against the upstream.
    if kind == SourceErrorKind::Forbidden { failed } else { failed.unreachable() }
}

pub(crate) fn same_origin(one: &Uri, other: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    one.scheme_str() == other.scheme_str() && host(one) == host(other) && port_of(one) == port_of(other)
}
