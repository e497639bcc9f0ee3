//! One request and its answer, redirects followed, within the time that it may take.
//!
//! Redirects are followed here and not by the reader of the content: their targets are guarded like any upstream, and
//! what identifies us is never sent to another scheme, host or port than it was meant for.

use std::{
    error::Error,
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
    body,
    connect::ConnectTimedOut,
    guard::{Guard, Refused, port_of},
    hosts::{Hosts, Kind},
    redirect,
    transport::{AnyTransport, Body, BoxError},
};
use crate::{
    content::{SourceError, SourceErrorKind},
    trace::{REQUEST_ID, RequestContext, TRACEPARENT},
};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// How much time a host is given at least before its silence says something about it.
const PATIENT: Duration = Duration::from_secs(2);

pub(super) const AGENT: HeaderValue = HeaderValue::from_static(concat!("kuik/", env!("CARGO_PKG_VERSION")));

/// How long to wait for what. Every wait of the client is bounded by one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To resolve, connect and agree on TLS: 5 s.
    pub connect: Duration,
    /// From sending a request to the headers of its response, connecting included: 15 s.
    pub headers: Duration,
    /// For the whole answer to a question until its headers, with everything that it takes: authentication,
    /// redirects, fall-backs: 18 s, so that a puller that gives up after 20 s gets an answer.
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

/// Sends requests.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) transport: AnyTransport,
    pub(super) guard: Guard,
    pub(super) timeouts: Timeouts,
    pub(super) hosts: Hosts,
}

/// A request that can be sent again, and what it is called in errors.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// "GET manifest library/nginx:latest from <https://registry-1.docker.io>".
    pub(super) what: String,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether registries count it as a pull: a `GET` of a manifest.
    pub(super) is_pull: bool,
    /// The account in whose name it is asked; empty for nobody's.
    pub(super) account: Arc<str>,
    /// The request that it is asked for, where whoever is asked is to know.
    pub(super) context: Option<RequestContext>,
    /// When the answer's headers must have arrived.
    pub(super) deadline: Instant,
    /// Whether this may go over plain http because it is asked of an origin that is allowed it.
    pub(super) over_http: bool,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// Whether it came from another host than was asked, after a redirect.
    pub(super) elsewhere: bool,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Whether it says that the credential will not do.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }
}

impl Question {
    /// The same, in the name of an account.
    pub(super) fn asked_as(&self, account: Arc<str>) -> Self {
        Self { account, ..self.clone() }
    }

    pub(super) fn error(&self, kind: SourceErrorKind, problem: impl fmt::Display) -> SourceError {
        SourceError::new(kind, format!("{}: {problem}", self.what))
    }
}

impl Exchange {
    /// Sends the question, with `authorization` as long as its host is not left.
    pub(super) async fn send(
        &self,
        question: &Question,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, SourceError> {
        let mut uri = question.uri.clone();
        let mut authorization = authorization;
        let mut over_http = question.over_http;
        let mut elsewhere = false;
        for _ in 0..=MAX_REDIRECTS {
            self.guard.check(&uri, over_http).map_err(|refused| forbidden(question, refused))?;
            let response = self.send_once(question, &uri, authorization, elsewhere).await?;
            if !redirect::is_redirect(response.status()) {
                return Ok(Answer { response, elsewhere });
            }
            let next = response
                .headers()
                .get(LOCATION)
                .and_then(|location| redirect::target(&uri, location.as_bytes()))
                .ok_or_else(|| {
                    question.error(SourceErrorKind::InvalidContent, "it redirects to no usable address")
                })?;
            body::discard(response.into_body(), self.timeouts.stall).await;
            if !same_origin(&uri, &next) {
                if !question.body.is_empty() {
                    // The body may be a credential.
                    return Err(question.error(
                        SourceErrorKind::InvalidContent,
                        "it redirects what it is sent to another host",
                    ));
                }
                authorization = None;
                elsewhere = true;
            }
            // Plain http was allowed to this origin alone; another has to be named itself.
            over_http = over_http && same_origin(&uri, &next);
            uri = next;
        }
        Err(question
            .error(SourceErrorKind::InvalidContent, format_args!("more than {MAX_REDIRECTS} redirects")))
    }

    async fn send_once(
        &self,
        question: &Question,
        uri: &Uri,
        authorization: Option<&HeaderValue>,
        elsewhere: bool,
    ) -> Result<Response<Body>, SourceError> {
        let kind = if elsewhere {
            Kind { account: Arc::default(), is_pull: false }
        } else {
            Kind { account: question.account.clone(), is_pull: question.is_pull }
        };
        let asked =
            Asked { context: RequestContext::current(), wall: SystemTime::now(), clock: Instant::now() };
        let host = self.hosts.of(uri);
        let admission = host.admit(&question.what, kind, question.deadline).await?;
        let body = if question.body.is_empty() { Body::empty() } else { Body::from(question.body.clone()) };
        let mut request = Request::new(body);
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = question.headers.clone();
        request.headers_mut().insert(USER_AGENT, AGENT);
        if let Some(context) = question.context.as_ref().filter(|_| !elsewhere) {
            let headers = [(REQUEST_ID, context.id().to_owned()), (TRACEPARENT, context.traceparent())];
            request.headers_mut().extend(headers.into_iter().filter_map(|(name, value)| {
                Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
            }));
        }
        if let Some(authorization) = authorization {
            let mut authorization = authorization.clone();
            authorization.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        let left = question.deadline.saturating_duration_since(Instant::now());
        let limit = self.timeouts.headers.min(left);
        let error = match timeout(limit, self.transport.clone().oneshot(request)).await {
            Ok(Ok(response)) => {
                asked.record(question, uri, Some(response.status()));
                let receiving = self.hosts.answered(admission, response.status(), response.headers());
                return Ok(response.map(|body| body.held_by(receiving)));
            }
            Ok(Err(error)) => failed(question, error),
            Err(_) => question.error(SourceErrorKind::TimedOut, "no answer in time"),
        };
        asked.record(question, uri, None);
        // Who was hardly given time to answer has not been silent.
        admission.failed(&error, limit >= PATIENT.min(self.timeouts.headers));
        Err(error)
    }
}

/// When something was asked, and for which request.
struct Asked {
    context: Option<RequestContext>,
    wall: SystemTime,
    clock: Instant,
}

impl Asked {
    /// Makes it a part of the request's trace. Of the address, only the host is told: a path may be signed.
    fn record(&self, question: &Question, uri: &Uri, status: Option<StatusCode>) {
        let Some(context) = self.context.as_ref().filter(|context| context.is_recorded()) else { return };
        let host = uri.host().unwrap_or_default();
        let mut attributes =
            vec![("http.request.method", question.method.to_string()), ("server.address", host.to_owned())];
        attributes.extend(status.map(|status| ("http.response.status_code", status.as_u16().to_string())));
        let failed = status.is_none_or(|status| status.is_server_error());
        let name = format!("{} {host}", question.method);
        context.record_asked(name, self.wall, self.clock.elapsed(), failed, attributes);
    }
}

pub(super) fn forbidden(question: &Question, refused: Refused) -> SourceError {
    SourceError::caused_by(SourceErrorKind::Forbidden, question.what.clone(), refused)
}

/// An error of the transport, by what lies below it.
pub(super) fn failed(question: &Question, error: BoxError) -> SourceError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    let mut kind = SourceErrorKind::Unavailable;
    while let Some(below) = cause {
        if below.is::<Refused>() {
            kind = SourceErrorKind::Forbidden;
        } else if below.is::<ConnectTimedOut>()
            || below
                .downcast_ref()
                .is_some_and(|io: &std::io::Error| io.kind() == std::io::ErrorKind::TimedOut)
        {
            kind = SourceErrorKind::TimedOut;
        }
        cause = below.source();
    }
    let failed = SourceError::caused_by(kind, question.what.clone(), error);
    // What we refuse ourselves says nothing about the other side.
    if kind == SourceErrorKind::Forbidden { failed } else { failed.unreachable() }
}

pub(super) fn same_origin(one: &Uri, other: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    one.scheme_str() == other.scheme_str() && host(one) == host(other) && port_of(one) == port_of(other)
}
