//! HTTP call to a cloud service, limited in time and response size.
//!
//! Redirects are not followed, because requests contain secrets. Errors quote only the short error code of a response.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::{
    client::{
        Body, Guard, HostPort, HttpTransport, InvalidTransport, RegistryTransport, Timeouts, TransportConfig,
        transport::{AnyTransport, erase},
    },
    credentials::CredentialError,
};

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The largest response, in bytes.
const MAX_ANSWER: usize = 256 << 10;
/// Characters that are not escaped in a form (RFC 3986, section 2.3).
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Sends requests through one transport.
#[derive(Clone)]
pub(super) struct Caller(AnyTransport);

/// A request, with its description for errors.
pub(super) struct Call {
    pub(super) what: String,
    pub(super) method: Method,
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Caller {
    pub(super) fn new(transport: impl RegistryTransport) -> Self {
        Self(erase(transport))
    }

    /// Returns a caller for services that only this machine can reach: it contacts only these URLs, never through a
    /// proxy.
    pub(super) fn local(urls: &[&str]) -> Result<Self, InvalidTransport> {
        let named = urls.iter().filter_map(|url| {
            let uri: Uri = url.parse().ok()?;
            Some((uri.authority()?.as_str().parse::<HostPort>().ok()?, uri.scheme_str() == Some("http")))
        });
        let config = TransportConfig {
            guard: named.fold(Guard::default(), |guard, (host, http)| guard.naming(host, http)),
            // On a machine without a metadata server the connection should fail quickly.
            timeouts: Timeouts { connect: Duration::from_secs(1), ..Timeouts::default() },
            ..TransportConfig::default()
        };
        HttpTransport::new(config).map(Self::new)
    }

    /// Returns the response body parsed as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, CredentialError> {
        let what = call.what.clone();
        let body = self.bytes(call).await?;
        // The parser's error might quote a token.
        serde_json::from_slice(&body).map_err(|_| wrong(&what, "unexpected response format"))
    }

    /// Returns the body of a successful response.
    pub(super) async fn bytes(&self, call: Call) -> Result<Bytes, CredentialError> {
        let Call { what, method, uri, headers, body } = call;
        let body = if body.is_empty() { Body::empty() } else { Body::from(body) };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().map_err(|_| wrong(&what, "its address is not a URL"))?;
        *request.headers_mut() = headers;
        let transport = self.0.clone();
        let asking = async {
            let response = transport
                .oneshot(request)
                .await
                .map_err(|error| CredentialError::new(format!("{what}: no response"), Some(error)))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|_| wrong(&what, "the response is incomplete or too large"))?.to_bytes();
            Ok((parts.status, body))
        };
        let (status, body) = timeout(LIMIT, asking)
            .await
            .map_err(|_| wrong(&what, format_args!("no response within {LIMIT:?}")))??;
        if status.is_success() {
            return Ok(body);
        }
        let code = error_code(&body).map(|code| format!(" ({code})")).unwrap_or_default();
        Err(wrong(&what, format_args!("{status}{code}")))
    }
}

impl Call {
    pub(super) fn get(what: impl Into<String>, uri: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            method: Method::GET,
            uri: uri.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// A POST of a form.
    pub(super) fn form(what: impl Into<String>, uri: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let mut call = Self::get(what, uri);
        call.method = Method::POST;
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        call.body = encoded(fields).into();
        call
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Result<Self, CredentialError> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| wrong(&self.what, format_args!("the value for {name} is invalid in a header")))?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }
}

/// Encodes fields as a query or a form.
pub(super) fn encoded(fields: &[(&str, &str)]) -> String {
    let field = |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, FORM));
    fields.iter().map(field).collect::<Vec<_>>().join("&")
}

/// Creates an error about `what`.
pub(super) fn wrong(what: &str, problem: impl fmt::Display) -> CredentialError {
    CredentialError::new(format!("{what}: {problem}"), None)
}

#[derive(Deserialize)]
struct Failure {
    /// OAuth 2 and its derivatives.
    #[serde(default)]
    error: serde_json::Value,
    /// AWS.
    #[serde(default, rename = "__type", alias = "code", alias = "Code")]
    code: String,
}

/// Returns the code of an error response: one short word, so that it cannot contain a secret.
fn error_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let code = match serde_json::from_str::<Failure>(text) {
        Ok(Failure { error: serde_json::Value::String(code), .. }) => code,
        Ok(Failure { error: serde_json::Value::Object(fields), .. }) => {
            fields.get("status").and_then(serde_json::Value::as_str)?.to_owned()
        }
        Ok(Failure { code, .. }) => code,
        Err(_) => text.split_once("<Code>")?.1.split_once("</Code>")?.0.to_owned(),
    };
    let is_word = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.' | '#');
    (!code.is_empty() && code.len() <= 80 && code.chars().all(is_word)).then_some(code)
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Refused;

    #[test]
    fn only_the_code_of_an_error_is_reported() {
        for (body, expected) in [
            (r#"{"error":"invalid_client","error_description":"hunter2"}"#, Some("invalid_client")),
            (
                r#"{"error":{"code":403,"message":"hunter2","status":"PERMISSION_DENIED"}}"#,
                Some("PERMISSION_DENIED"),
            ),
            (r#"{"__type":"AccessDeniedException","Message":"hunter2"}"#, Some("AccessDeniedException")),
            (
                "<E><Error><Code>ExpiredTokenException</Code><Message>hunter2</Message></Error></E>",
                Some("ExpiredTokenException"),
            ),
            (r#"{"error":"hunter2 in words"}"#, None),
            (r#"{"__type":"x9"}"#, None),
            ("hunter2", None),
        ] {
            assert_eq!(error_code(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn form_values_are_percent_encoded() {
        assert_eq!(
            encoded(&[("a", "b c&d=e/f+g"), ("h", "i-j_k.l~m")]),
            "a=b%20c%26d%3De%2Ff%2Bg&h=i-j_k.l~m"
        );
    }

    #[tokio::test]
    async fn local_caller_contacts_only_its_urls() {
        let caller = Caller::local(&["http://127.0.0.1:9"]).unwrap();
        let error = caller.bytes(Call::get("it", "http://127.0.0.1:10/")).await.unwrap_err();
        assert!(crate::error::causes(&error).any(<dyn std::error::Error>::is::<Refused>), "{error:?}");
    }
}
