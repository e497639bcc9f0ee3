//! What a client gets: the responses of the OCI distribution specification, section "Pull".

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use kuik_core::{
    content::{Blob, BlobLocation, Digest, Manifest, Origin, Referrers, Served, SourceErrorKind, TagList},
    reference::RepositoryName,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ProxyBody, refusal::insert};

pub(crate) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// A response, and where its content came from.
pub(super) struct Answer {
    pub response: Response<ProxyBody>,
    pub origin: Option<Origin>,
}

impl Answer {
    fn new(body: ProxyBody, origin: Option<Origin>) -> Self {
        let mut response = Response::new(body);
        if let Some(origin) = origin {
            response.headers_mut().insert(CACHE_STATUS, cache_status(origin));
        }
        Self { response, origin }
    }

    fn headers(&mut self) -> &mut HeaderMap {
        self.response.headers_mut()
    }
}

/// How this cache handled the request (RFC 9211), and what upstream answered where that says more than that it failed: for
/// another kuik, since a hit has no `fwd-status` in that RFC, which others ignore then.
fn cache_status(origin: Origin) -> HeaderValue {
    HeaderValue::from_static(match origin {
        Origin::Cache => "kuik; hit",
        Origin::Stale(SourceErrorKind::NotFound) => "kuik; hit; detail=stale; fwd-status=404",
        Origin::Stale(SourceErrorKind::Unauthorized) => "kuik; hit; detail=stale; fwd-status=401",
        Origin::Stale(SourceErrorKind::Denied) => "kuik; hit; detail=stale; fwd-status=403",
        Origin::Stale(SourceErrorKind::RateLimited) => "kuik; hit; detail=stale; fwd-status=429",
        Origin::Stale(_) => "kuik; hit; detail=stale",
        _ => "kuik; fwd=miss",
    })
}

pub(super) fn version() -> Answer {
    let mut answer = json("{}".into(), None);
    answer.headers().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    answer
}

pub(super) fn manifest(served: Served<Manifest>, head: bool, request: &HeaderMap) -> Answer {
    let Served { content: manifest, origin } = served;
    if let Some(answer) = unchanged(manifest.digest(), origin, request) {
        return answer;
    }
    let length = manifest.bytes().len();
    let body = if head { ProxyBody::empty() } else { ProxyBody::full(manifest.bytes().clone()) };
    let mut answer = Answer::new(body, Some(origin));
    let headers = answer.headers();
    insert(headers, header::CONTENT_TYPE, manifest.media_type().as_str());
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    name(headers, manifest.digest());
    answer
}

pub(super) fn blob_size(served: &Served<u64>, digest: &Digest, request: &HeaderMap) -> Answer {
    if let Some(answer) = unchanged(digest, served.origin, request) {
        return answer;
    }
    let mut answer = Answer::new(ProxyBody::empty(), Some(served.origin));
    answer.headers().insert(header::CONTENT_LENGTH, HeaderValue::from(served.content));
    describe_blob(answer.headers(), digest);
    answer
}

pub(super) fn blob(served: Served<Blob>, digest: &Digest) -> Answer {
    let Served { content: blob, origin } = served;
    let (length, size, range) = (blob.len(), blob.size, blob.range.clone());
    let mut answer = Answer::new(ProxyBody::stream(blob.body, length), Some(origin));
    if let Some(range) = range {
        *answer.response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = range.end.saturating_sub(1);
        let size = size.map_or_else(|| "*".to_owned(), |size| size.to_string());
        insert(answer.headers(), header::CONTENT_RANGE, &format!("bytes {}-{last}/{size}", range.start));
    }
    if let Some(length) = length {
        answer.headers().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    describe_blob(answer.headers(), digest);
    answer
}

/// A `307` to where the blob is: it is here, and the client gets it there.
pub(super) fn elsewhere(location: &BlobLocation, digest: &Digest) -> Answer {
    let mut answer = Answer::new(ProxyBody::empty(), Some(Origin::Cache));
    *answer.response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    insert(answer.headers(), header::LOCATION, location.url());
    insert(answer.headers(), DIGEST, digest.as_str());
    answer
}

/// A `304`, where the client says that it has this content.
pub(super) fn unchanged(digest: &Digest, origin: Origin, request: &HeaderMap) -> Option<Answer> {
    let held = request.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    let matches = held.split(',').any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == digest.as_str()
    });
    if !matches {
        return None;
    }
    let mut answer = Answer::new(ProxyBody::empty(), Some(origin));
    *answer.response.status_mut() = StatusCode::NOT_MODIFIED;
    name(answer.headers(), digest);
    Some(answer)
}

pub(super) fn tags(repository: &RepositoryName, uri: &Uri, limit: Option<usize>, list: &TagList) -> Answer {
    let body = serde_json::json!({ "name": repository.path(), "tags": list.tags }).to_string();
    let mut answer = json(body, None);
    if let (true, Some(last)) = (list.more, list.tags.last()) {
        let n = limit.unwrap_or(list.tags.len());
        insert(answer.headers(), header::LINK, &format!("<{}>; rel=\"next\"", next_page(uri, n, last)));
    }
    answer
}

/// The same request from the tag `last` on: with `ns`, without which it would be about another registry.
fn next_page(uri: &Uri, n: usize, last: &str) -> String {
    let query = uri.query().unwrap_or_default();
    let namespace = query.split('&').find(|parameter| parameter.starts_with("ns="));
    let namespace = namespace.map(|namespace| format!("&{namespace}")).unwrap_or_default();
    let last = utf8_percent_encode(last, NON_ALPHANUMERIC);
    format!("{}?n={n}&last={last}{namespace}", uri.path())
}

pub(super) fn referrers(referrers: Referrers) -> Answer {
    let length = referrers.index.len();
    let mut answer = Answer::new(ProxyBody::full(referrers.index), None);
    let headers = answer.headers();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.oci.image.index.v1+json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if referrers.filtered {
        headers.insert(FILTERS, HeaderValue::from_static("artifactType"));
    }
    answer
}

fn json(body: String, origin: Option<Origin>) -> Answer {
    let length = body.len();
    let mut answer = Answer::new(ProxyBody::full(body), origin);
    answer.headers().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    answer
}

fn describe_blob(headers: &mut HeaderMap, digest: &Digest) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    name(headers, digest);
}

/// Content that is named by its digest never changes under it: the digest is its entity tag.
fn name(headers: &mut HeaderMap, digest: &Digest) {
    insert(headers, DIGEST, digest.as_str());
    insert(headers, header::ETAG, &format!("\"{digest}\""));
}
