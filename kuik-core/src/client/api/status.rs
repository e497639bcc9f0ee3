//! Maps error responses to error kinds: pure functions of status, headers and the start of the body.

use std::time::Duration;

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_RANGE, RETRY_AFTER},
};
use jiff::Timestamp;
use serde::Deserialize;

use crate::content::{InvalidRange, SourceError, SourceErrorKind};

/// How many bytes of an error body are read.
pub(crate) const MAX_ERROR_BODY: usize = 8 * 1024;
/// How many characters of a registry's error message are kept.
const MAX_MESSAGE: usize = 200;
/// The longest `Retry-After` that is accepted.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Converts an error response with `status` into an error. `what` describes the request.
pub(crate) fn failure(
    what: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> SourceError {
    let mut text = format!("{what}: {status}");
    if let Some(message) = message(body) {
        text.push_str(": ");
        text.push_str(&message);
    }
    match kind(status) {
        SourceErrorKind::RateLimited => SourceError::rate_limited(text, retry_after(headers, now)),
        kind @ SourceErrorKind::RangeNotSatisfiable => match unsatisfied(headers) {
            Some(size) => SourceError::caused_by(kind, text, InvalidRange { size }),
            None => SourceError::new(kind, text),
        },
        kind @ SourceErrorKind::Unavailable => {
            let error = SourceError::new(kind, text);
            match retry_after(headers, now) {
                Some(wait) => error.to_be_retried_after(wait),
                None => error,
            }
        }
        kind => SourceError::new(kind, text),
    }
}

/// Returns the error kind of a status.
pub(crate) fn kind(status: StatusCode) -> SourceErrorKind {
    match status.as_u16() {
        401 | 407 => SourceErrorKind::Unauthorized,
        402 | 403 | 451 => SourceErrorKind::Denied,
        404 | 410 => SourceErrorKind::NotFound,
        408 => SourceErrorKind::TimedOut,
        416 => SourceErrorKind::RangeNotSatisfiable,
        429 => SourceErrorKind::RateLimited,
        507 => SourceErrorKind::Storage,
        500..=599 => SourceErrorKind::Unavailable,
        400..=499 => SourceErrorKind::Unsupported,
        // A success or redirect that was not expected.
        _ => SourceErrorKind::InvalidContent,
    }
}

/// Parses the total size from `Content-Range: bytes */SIZE` (RFC 9110, section 15.5.17).
fn unsatisfied(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes */")?.parse().ok()
}

/// Parses `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            // A date in the past means now.
            Duration::try_from(date.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_WAIT))
}

#[derive(Deserialize)]
struct OciErrors {
    errors: Vec<OciError>,
}

#[derive(Deserialize)]
struct OciError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Returns the registry's own message (OCI distribution specification, "Error Codes"), on one bounded line.
fn message(body: &[u8]) -> Option<String> {
    let parsed: OciErrors = serde_json::from_slice(body).ok()?;
    let first = parsed.errors.first()?;
    let words = [first.code.as_str(), first.message.as_str()];
    let said = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(": ");
    let mut line: String =
        said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect();
    if said.chars().count() > MAX_MESSAGE {
        line.push('…');
    }
    (!line.trim().is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "1994-11-06T08:49:07Z".parse().unwrap()
    }

    fn wait(value: &str) -> Option<u64> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        retry_after(&headers, now()).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_parsed_as_seconds_and_as_date() {
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30));
        assert_eq!(wait("Sat, 05 Nov 1994 08:49:37 GMT"), Some(0));
        assert_eq!(wait("99999999999"), Some(MAX_WAIT.as_secs()));
        assert_eq!(wait("-1"), None);
        assert_eq!(wait("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now()), None);
    }

    #[test]
    fn status_maps_to_error_kind() {
        for (status, expected) in [
            (400, SourceErrorKind::Unsupported),
            (401, SourceErrorKind::Unauthorized),
            (403, SourceErrorKind::Denied),
            (404, SourceErrorKind::NotFound),
            (416, SourceErrorKind::RangeNotSatisfiable),
            (429, SourceErrorKind::RateLimited),
            (500, SourceErrorKind::Unavailable),
            (503, SourceErrorKind::Unavailable),
            (507, SourceErrorKind::Storage),
            (204, SourceErrorKind::InvalidContent),
            (304, SourceErrorKind::InvalidContent),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(failure("x", status, &HeaderMap::new(), b"", now()).kind(), expected, "{status}");
        }
    }

    #[test]
    fn unsatisfied_range_reports_the_size() {
        let size = |value: &str| {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, value.parse().unwrap())]);
            let error = failure("x", StatusCode::RANGE_NOT_SATISFIABLE, &headers, b"", now());
            let cause = std::error::Error::source(&error)?;
            Some(cause.downcast_ref::<InvalidRange>()?.size)
        };
        assert_eq!(size("bytes */10"), Some(10));
        assert_eq!(size("bytes 0-1/10"), None);
    }

    #[test]
    fn error_message_is_one_bounded_line() {
        let said = |body: &str| message(body.as_bytes());
        assert_eq!(
            said(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\nunknown"}]}"#).as_deref(),
            Some("MANIFEST_UNKNOWN: manifest unknown")
        );
        assert_eq!(said(r#"{"errors":[{"code":"DENIED"}]}"#).as_deref(), Some("DENIED"));
        for nothing in ["", "<html>", "{}", r#"{"errors":[]}"#, r#"{"errors":[{}]}"#] {
            assert_eq!(said(nothing), None, "{nothing}");
        }
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "é".repeat(1000));
        assert_eq!(said(&long).unwrap().chars().count(), MAX_MESSAGE + 1);
    }
}
