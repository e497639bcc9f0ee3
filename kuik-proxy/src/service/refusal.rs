//! Error responses: a status, and a body as in the OCI distribution specification, section "Error Codes".

use std::{io, time::Duration};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use kuik_core::{
    content::{InvalidRange, SourceError, SourceErrorKind},
    error::causes,
};

use super::ProxyBody;
use crate::route::RouteError;

/// Default `Retry-After` in seconds.
const RETRY_AFTER_SECONDS: u64 = 2;

/// RFC 9110, section 15.5.2: a 401 carries a challenge. The missing credentials are the proxy's for the upstream, so
/// no client credential helps; clients without one report it as "not authorized".
const CHALLENGE: &str = "Basic realm=\"upstream\"";

/// An error response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(header::HeaderName, String)>,
}

impl Refusal {
    /// Returns a refusal with a code of the specification, or one of our own if none fits.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// Adds a header.
    pub(crate) fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Only `GET` and `HEAD` are supported: a proxy does not handle pushes and deletes.
    pub(super) fn method() -> Self {
        let message = "method not allowed: this registry is read-only and supports GET and HEAD";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message).with(header::ALLOW, "GET, HEAD")
    }

    /// Upstream, or the store, took longer than clients wait.
    pub(super) fn deadline(limit: Duration) -> Self {
        let message = format!("no answer within {limit:?}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
            .with(header::RETRY_AFTER, RETRY_AFTER_SECONDS.to_string())
    }

    pub(crate) fn route(error: &RouteError) -> Self {
        let (status, code) = match error {
            RouteError::NoEndpoint => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            RouteError::TooLong => (StatusCode::URI_TOO_LONG, "NAME_INVALID"),
            RouteError::Name(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            RouteError::Tag(_) => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            RouteError::Digest(..) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            RouteError::Parameter(_) => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
        };
        Self::new(status, code, error.to_string())
    }

    /// Maps an error of a source or store; `unknown` is the code for missing content.
    pub(crate) fn source(error: &SourceError, unknown: &'static str) -> Self {
        use SourceErrorKind as Kind;
        let (status, code) = match error.kind() {
            Kind::NotFound => (StatusCode::NOT_FOUND, unknown),
            Kind::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Kind::Denied | Kind::Forbidden => (StatusCode::FORBIDDEN, "DENIED"),
            Kind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Kind::Unavailable | Kind::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            Kind::InvalidContent => (StatusCode::BAD_GATEWAY, "UNAVAILABLE"),
            Kind::Unsupported => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Kind::RangeNotSatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID"),
            _ if is_full(error) => (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE"),
            Kind::Storage => return Self::store(error),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        };
        let refusal = Self::new(status, code, error.chain());
        match error.kind() {
            Kind::RateLimited | Kind::Unavailable | Kind::TimedOut => {
                let wait = error.retry_after().map_or(RETRY_AFTER_SECONDS, |wait| wait.as_secs().max(1));
                refusal.with(header::RETRY_AFTER, wait.to_string())
            }
            Kind::Unauthorized => refusal.with(header::WWW_AUTHENTICATE, CHALLENGE),
            Kind::RangeNotSatisfiable => match invalid_range(error) {
                // RFC 9110, section 15.5.17: a 416 carries the length of the content.
                Some(size) => refusal.with(header::CONTENT_RANGE, format!("bytes */{size}")),
                None => refusal,
            },
            _ => refusal,
        }
    }

    /// A failing disk or bucket may recover soon. Its message, with addresses and paths, goes to the log only.
    fn store(error: &SourceError) -> Self {
        tracing::error!(error = error.chain(), "the store failed");
        let message = format!("{error}: the store failed, see the log of this registry");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
            .with(header::RETRY_AFTER, RETRY_AFTER_SECONDS.to_string())
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn into_response(self, head: bool) -> Response<ProxyBody> {
        let body =
            serde_json::json!({ "errors": [{ "code": self.code, "message": self.message }] }).to_string();
        let mut response = Response::new(ProxyBody::empty());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        for (name, value) in self.headers {
            insert(headers, name, &value);
        }
        if !head {
            *response.body_mut() = ProxyBody::full(body);
        }
        response
    }
}

/// Whether a store failed for lack of space.
pub(crate) fn is_full(error: &SourceError) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}

fn invalid_range(error: &SourceError) -> Option<u64> {
    Some(std::error::Error::source(error)?.downcast_ref::<InvalidRange>()?.size)
}

/// Sets a header, if the value is valid.
pub(crate) fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_error_details_are_not_sent_to_clients() {
        let cause = io::Error::other("PUT http://10.0.0.1/bucket/key: SignatureDoesNotMatch");
        let refusal = Refusal::source(&SourceError::storage("begin an upload into app", cause), "UNUSED");
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refusal.message.starts_with("begin an upload into app: "), "{refusal:?}");
        assert!(!refusal.message.contains("10.0.0.1"), "{refusal:?}");
        assert!(refusal.headers.iter().any(|(name, _)| name == header::RETRY_AFTER));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let refusal = Refusal::source(&SourceError::storage("begin an upload into app", full), "UNUSED");
        assert_eq!(refusal.status, StatusCode::INSUFFICIENT_STORAGE);
    }
}
