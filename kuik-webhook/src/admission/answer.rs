//! What goes back to the API server: a review with a response, or an HTTP error for what is no review.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use super::{
    patch::Patch,
    review::{API_VERSION, KIND},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Verdict<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u16,
    reason: &'static str,
    message: &'a str,
}

/// It may be, with these changes.
pub(super) fn allowed(uid: &str, patch: &Patch) -> Response<Full<Bytes>> {
    if patch.is_empty() {
        return review(Verdict { uid, allowed: true, patch_type: None, patch: None, status: None });
    }
    match serde_json::to_vec(patch) {
        Ok(json) => {
            let patch = Some(BASE64_STANDARD.encode(json));
            review(Verdict { uid, allowed: true, patch_type: Some("JSONPatch"), patch, status: None })
        }
        Err(error) => failed(&error),
    }
}

/// It may not be, and this is why.
pub(super) fn refused(uid: &str, message: &str) -> Response<Full<Bytes>> {
    // As Kubernetes' own example has it: of what is `Invalid`, kubectl 1.20 shows no message.
    let status = Some(Status { code: 403, reason: "Forbidden", message });
    review(Verdict { uid, allowed: false, patch_type: None, patch: None, status })
}

/// The request is not one that has an answer.
pub(super) fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{message}\n"))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn review(response: Verdict<'_>) -> Response<Full<Bytes>> {
    match serde_json::to_vec(&Answer { api_version: API_VERSION, kind: KIND, response }) {
        Ok(json) => {
            let mut response = Response::new(Full::new(Bytes::from(json)));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => failed(&error),
    }
}

/// Texts and numbers can always be written as JSON; were it otherwise, the failure policy decides.
fn failed(error: &serde_json::Error) -> Response<Full<Bytes>> {
    self::error(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot write the answer: {error}"))
}
