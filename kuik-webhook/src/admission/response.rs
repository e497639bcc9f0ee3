//! HTTP responses: an `AdmissionReview` with a response, or an HTTP error for requests that are not reviews.

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
struct ReviewBody<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: AdmissionResponse<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionResponse<'a> {
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

/// Allows the request, with `patch`.
pub(super) fn allow(uid: &str, patch: &Patch) -> Response<Full<Bytes>> {
    if patch.is_empty() {
        return review(AdmissionResponse { uid, allowed: true, patch_type: None, patch: None, status: None });
    }
    match serde_json::to_vec(patch) {
        Ok(json) => {
            let (patch_type, patch) = (Some("JSONPatch"), Some(BASE64_STANDARD.encode(json)));
            review(AdmissionResponse { uid, allowed: true, patch_type, patch, status: None })
        }
        Err(error) => failed(&error),
    }
}

/// Denies the request, with a message for its author.
pub(super) fn deny(uid: &str, message: &str) -> Response<Full<Bytes>> {
    // `Forbidden` as in the Kubernetes documentation: kubectl 1.20 prints no message for `Invalid`.
    let status = Some(Status { code: 403, reason: "Forbidden", message });
    review(AdmissionResponse { uid, allowed: false, patch_type: None, patch: None, status })
}

/// Returns an HTTP error for a request that is not a review.
pub(super) fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{message}\n"))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn review(response: AdmissionResponse<'_>) -> Response<Full<Bytes>> {
    match serde_json::to_vec(&ReviewBody { api_version: API_VERSION, kind: KIND, response }) {
        Ok(json) => {
            let mut response = Response::new(Full::new(Bytes::from(json)));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => failed(&error),
    }
}

/// Strings and numbers always serialize; if they ever did not, the failure policy would apply.
fn failed(error: &serde_json::Error) -> Response<Full<Bytes>> {
    self::error(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to serialize the review: {error}"))
}
