//! Responses to pushes: OCI distribution specification, "Push" and "Content Management". They have headers only, no
//! body.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use kuik_core::{
    content::{Digest, UploadId},
    reference::Tag,
};

use crate::service::{DIGEST, ProxyBody, insert};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Returns the URL of an upload's next request.
pub(super) fn location(base: &str, id: &UploadId) -> String {
    format!("{base}/blobs/uploads/{}", id.as_str())
}

/// Range of an upload that is acknowledged. An empty range cannot be expressed: Docker's registry sends `0-0` for
/// that too, and clients know how much they have sent.
pub(super) fn range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

/// Response for an upload in progress: `202` after a change, `204` after a query.
pub(super) fn upload(status: StatusCode, base: &str, id: &UploadId, offset: u64) -> Response<ProxyBody> {
    let mut response = empty(status);
    let headers = response.headers_mut();
    insert(headers, header::LOCATION, &location(base, id));
    insert(headers, header::RANGE, &range(offset));
    insert(headers, UPLOAD_UUID, id.as_str());
    response
}

/// Response for a stored blob.
pub(super) fn blob(base: &str, digest: &Digest) -> Response<ProxyBody> {
    let mut response = empty(StatusCode::CREATED);
    insert(response.headers_mut(), header::LOCATION, &format!("{base}/blobs/{digest}"));
    insert(response.headers_mut(), DIGEST, digest.as_str());
    response
}

/// Response for a stored manifest.
pub(super) fn manifest(
    base: &str,
    digest: &Digest,
    subject: Option<&Digest>,
    tags: &[Tag],
) -> Response<ProxyBody> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    insert(headers, header::LOCATION, &format!("{base}/manifests/{digest}"));
    insert(headers, DIGEST, digest.as_str());
    if let Some(subject) = subject {
        insert(headers, SUBJECT, subject.as_str());
    }
    for tag in tags {
        if let Ok(tag) = HeaderValue::from_str(tag.as_str()) {
            headers.append(TAG, tag);
        }
    }
    response
}

/// Response with a status only.
pub(super) fn empty(status: StatusCode) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::empty());
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}
