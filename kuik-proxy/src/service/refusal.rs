//! What a client is told when it does not get what it asked for: a status, and an error body as in the OCI
//! distribution specification, section "Error Codes".

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use kuik_core::content::{InvalidRange, SourceError, SourceErrorKind};

use super::ProxyBody;
use crate::route::{Route, RouteError};

/// After how many seconds a client may try again, where nobody knows better.
const RETRY_AFTER_SECONDS: u64 = 2;

/// A response that refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    extra: Option<(header::HeaderName, String)>,
}

impl Refusal {
    /// Only `GET` and `HEAD` are answered: pushes and deletes are not a proxy's.
    pub(super) fn method() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "UNSUPPORTED",
            message: "this registry is read through, and only GET and HEAD are answered".to_owned(),
            extra: Some((header::ALLOW, "GET, HEAD".to_owned())),
        }
    }

    /// Upstream, or the store, took longer than any client waits.
    pub(super) fn deadline(limit: Duration) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "UNAVAILABLE",
            message: format!("there was no answer within {limit:?}"),
            extra: Some((header::RETRY_AFTER, RETRY_AFTER_SECONDS.to_string())),
        }
    }

    pub(super) fn route(error: &RouteError) -> Self {
        let (status, code) = match error {
            RouteError::NoEndpoint => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            RouteError::TooLong => (StatusCode::URI_TOO_LONG, "NAME_INVALID"),
            RouteError::Name(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            RouteError::Tag(_) => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            RouteError::Digest(..) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            RouteError::Parameter(_) => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
        };
        Self { status, code, message: error.to_string(), extra: None }
    }

    /// What a failed source means to a client that asked for `route`.
    pub(super) fn source(error: &SourceError, route: &Route) -> Self {
        use SourceErrorKind as Kind;
        let wait = error.retry_after().map_or(RETRY_AFTER_SECONDS, |wait| wait.as_secs().max(1));
        let retry = Some((header::RETRY_AFTER, wait.to_string()));
        let (status, code, extra) = match error.kind() {
            Kind::NotFound => (StatusCode::NOT_FOUND, unknown(route), None),
            Kind::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", challenge()),
            Kind::Denied | Kind::Forbidden => (StatusCode::FORBIDDEN, "DENIED", None),
            Kind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", retry),
            Kind::Unavailable | Kind::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", retry),
            Kind::InvalidContent => (StatusCode::BAD_GATEWAY, "UNAVAILABLE", None),
            Kind::Unsupported => (StatusCode::BAD_REQUEST, "UNSUPPORTED", None),
            Kind::RangeNotSatisfiable => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", content_range(error))
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", None),
        };
        Self { status, code, message: error.chain(), extra }
    }

    pub(super) fn into_response(self, head: bool) -> Response<ProxyBody> {
        let body =
            serde_json::json!({ "errors": [{ "code": self.code, "message": self.message }] }).to_string();
        let mut response = Response::new(ProxyBody::empty());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some((name, value)) = self.extra {
            insert(headers, name, &value);
        }
        if !head {
            *response.body_mut() = ProxyBody::full(body);
        }
        response
    }
}

/// RFC 9110, section 15.5.2: a 401 carries a challenge. What is missing are credentials of ours for the upstream, so
/// no answer of the client's will do, and one that has none says what people understand: it is not authorised.
fn challenge() -> Option<(header::HeaderName, String)> {
    Some((header::WWW_AUTHENTICATE, "Basic realm=\"upstream\"".to_owned()))
}

/// Which of the specification's codes says that a thing does not exist.
fn unknown(route: &Route) -> &'static str {
    match route {
        Route::Blob { .. } => "BLOB_UNKNOWN",
        Route::Manifest { .. } => "MANIFEST_UNKNOWN",
        Route::Version | Route::Tags { .. } | Route::Referrers { .. } => "NAME_UNKNOWN",
    }
}

/// RFC 9110, section 15.5.17: a 416 says how long the content is.
fn content_range(error: &SourceError) -> Option<(header::HeaderName, String)> {
    let invalid = std::error::Error::source(error)?.downcast_ref::<InvalidRange>()?;
    Some((header::CONTENT_RANGE, format!("bytes */{}", invalid.size)))
}

/// Sets a header, where its value can be one.
pub(super) fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
