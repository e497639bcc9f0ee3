//! Authentication responses: a challenge (RFC 6750, and the token exchange of Docker's registries), a refusal, or a
//! token.

use http::{HeaderValue, Response, StatusCode, header};

use super::{TOKEN_PATH, Wanted};
use crate::service::{ProxyBody, Refusal};

/// Lifetime of an issued token in seconds: short, so that a rotated token reaches clients soon.
const EXPIRES_IN: u32 = 60;

/// Returns a challenge for the token. At the token endpoint it asks for a password.
pub(super) fn authenticate(origin: &str, wanted: Wanted, head: bool) -> Response<ProxyBody> {
    let challenge = match wanted {
        Wanted::Token => "Basic realm=\"kuik\"".to_owned(),
        _ => format!("Bearer realm=\"{origin}{TOKEN_PATH}\",service=\"kuik\""),
    };
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "UNAUTHORIZED",
        "authentication required: send this registry's token",
    )
    .with(header::WWW_AUTHENTICATE, challenge)
    .into_response(head)
}

/// Returns a refusal that no credential can lift.
pub(super) fn deny(wanted: Wanted, head: bool) -> Response<ProxyBody> {
    let message = match wanted {
        Wanted::Write => "pushes and deletes are disabled: this registry has no token",
        _ => "access is disabled: this registry requires a token and has none",
    };
    Refusal::new(StatusCode::FORBIDDEN, "DENIED", message).into_response(head)
}

/// Issues a token. Both JSON keys are in use for it.
pub(super) fn grant(token: &str, head: bool) -> Response<ProxyBody> {
    let body = serde_json::json!({ "token": token, "access_token": token, "expires_in": EXPIRES_IN });
    let body = body.to_string();
    let length = body.len();
    let mut response = Response::new(if head { ProxyBody::empty() } else { ProxyBody::full(body) });
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
