//! What a client gets that may not go on: a challenge (RFC 6750, and the token exchange of Docker's registries), a
//! refusal, or a token.

use http::{HeaderValue, Response, StatusCode, header};

use super::{TOKEN_PATH, Wanted};
use crate::service::{ProxyBody, Refusal};

/// After how many seconds a client is to ask for its token again: a new one in the file then reaches it soon.
const EXPIRES_IN: u32 = 60;

/// Asks for the token. Whoever is already where tokens are had is asked for a password.
pub(super) fn authenticate(origin: &str, wanted: Wanted, head: bool) -> Response<ProxyBody> {
    let challenge = match wanted {
        Wanted::Token => "Basic realm=\"kuik\"".to_owned(),
        _ => format!("Bearer realm=\"{origin}{TOKEN_PATH}\",service=\"kuik\""),
    };
    Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "show the token of this registry")
        .with(header::WWW_AUTHENTICATE, challenge)
        .into_response(head)
}

/// Says that this is not to be had.
pub(super) fn deny(wanted: Wanted, head: bool) -> Response<ProxyBody> {
    let message = match wanted {
        Wanted::Write => "this registry has no token to push and delete with",
        _ => "this registry has no token, and nothing can be had without one",
    };
    Refusal::new(StatusCode::FORBIDDEN, "DENIED", message).into_response(head)
}

/// Hands out a token. Both names are in use for it.
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
