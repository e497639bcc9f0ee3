//! Responses to pulls: OCI distribution specification, section "Pull".

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use kuik_core::{
    content::{
        Blob, BlobLocation, CacheStatus, Cached, Digest, Manifest, Referrers, SourceErrorKind, TagList,
    },
    reference::RepositoryName,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ProxyBody, refusal::insert};

pub(crate) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Warning of a response that could not be revalidated (RFC 7234, section 5.5.1).
const STALE_WARNING: HeaderValue = HeaderValue::from_static(r#"110 kuik "Response is Stale""#);

/// A response, and the cache status of its content.
pub(super) struct Answer {
    pub response: Response<ProxyBody>,
    pub cache_status: Option<CacheStatus>,
}

impl Answer {
    fn new(body: ProxyBody, cache_status: Option<CacheStatus>) -> Self {
        let mut response = Response::new(body);
        if let Some(cache_status) = cache_status {
            response.headers_mut().insert(CACHE_STATUS, cache_status_header(cache_status));
            if let CacheStatus::Stale(_) = cache_status {
                response.headers_mut().insert(header::WARNING, STALE_WARNING);
            }
        }
        Self { response, cache_status }
    }

    fn headers(&mut self) -> &mut HeaderMap {
        self.response.headers_mut()
    }
}

/// `Cache-Status` of the response (RFC 9211). A stale response has upstream's status if it was more specific than a
/// failure.
fn cache_status_header(status: CacheStatus) -> HeaderValue {
    HeaderValue::from_static(match status {
        CacheStatus::Cache => "kuik; hit",
        CacheStatus::Stale(SourceErrorKind::NotFound) => "kuik; fwd=stale; fwd-status=404",
        CacheStatus::Stale(SourceErrorKind::Unauthorized) => "kuik; fwd=stale; fwd-status=401",
        CacheStatus::Stale(SourceErrorKind::Denied) => "kuik; fwd=stale; fwd-status=403",
        CacheStatus::Stale(SourceErrorKind::RateLimited) => "kuik; fwd=stale; fwd-status=429",
        CacheStatus::Stale(_) => "kuik; fwd=stale",
        _ => "kuik; fwd=miss",
    })
}

pub(super) fn version() -> Answer {
    let mut answer = json("{}".into(), None);
    answer.headers().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    answer
}

pub(super) fn manifest(served: Cached<Manifest>, head: bool, request: &HeaderMap) -> Answer {
    let Cached { content: manifest, cache_status } = served;
    if let Some(answer) = unchanged(manifest.digest(), cache_status, request) {
        return answer;
    }
    let length = manifest.bytes().len();
    let body = if head { ProxyBody::empty() } else { ProxyBody::full(manifest.bytes().clone()) };
    let mut answer = Answer::new(body, Some(cache_status));
    let headers = answer.headers();
    insert(headers, header::CONTENT_TYPE, manifest.media_type().as_str());
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    name(headers, manifest.digest());
    answer
}

pub(super) fn blob_size(served: &Cached<u64>, digest: &Digest, request: &HeaderMap) -> Answer {
    if let Some(answer) = unchanged(digest, served.cache_status, request) {
        return answer;
    }
    let mut answer = Answer::new(ProxyBody::empty(), Some(served.cache_status));
    answer.headers().insert(header::CONTENT_LENGTH, HeaderValue::from(served.content));
    describe_blob(answer.headers(), digest);
    answer
}

pub(super) fn blob(served: Cached<Blob>, digest: &Digest) -> Answer {
    let Cached { content: blob, cache_status } = served;
    let (length, size, range) = (blob.len(), blob.size, blob.range.clone());
    let mut answer = Answer::new(ProxyBody::stream(blob.body, length), Some(cache_status));
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

/// A `307` redirect to the blob's location.
pub(super) fn redirect(location: &BlobLocation, digest: &Digest) -> Answer {
    let mut answer = Answer::new(ProxyBody::empty(), Some(CacheStatus::Cache));
    *answer.response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    insert(answer.headers(), header::LOCATION, location.url());
    insert(answer.headers(), DIGEST, digest.as_str());
    answer
}

/// A `304`, if the client states that it has this content.
pub(super) fn unchanged(digest: &Digest, cache_status: CacheStatus, request: &HeaderMap) -> Option<Answer> {
    let held = request.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    let matches = held.split(',').any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == digest.as_str()
    });
    if !matches {
        return None;
    }
    let mut answer = Answer::new(ProxyBody::empty(), Some(cache_status));
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

/// Returns the URL of the page after the tag `last`: with `ns`, without which it would name another registry.
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

fn json(body: String, cache_status: Option<CacheStatus>) -> Answer {
    let length = body.len();
    let mut answer = Answer::new(ProxyBody::full(body), cache_status);
    answer.headers().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    answer
}

fn describe_blob(headers: &mut HeaderMap, digest: &Digest) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    name(headers, digest);
}

/// Content addressed by its digest never changes: the digest is its entity tag.
fn name(headers: &mut HeaderMap, digest: &Digest) {
    insert(headers, DIGEST, digest.as_str());
    insert(headers, header::ETAG, &format!("\"{digest}\""));
}
