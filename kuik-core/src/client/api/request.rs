//! Registry request specification: the part of a request that does not depend on the upstream.

use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, RANGE},
};
use tokio::time::Instant;

use super::headers::range_header;
use crate::content::{ByteRange, Digest, Freshness, MediaType, TagOrDigest};

/// A request, independent of the upstream.
pub(crate) struct RequestSpec {
    pub(crate) method: Method,
    /// The kind of content, and what follows the repository in error messages.
    pub(crate) name: (&'static str, String),
    /// What follows the repository in the URL.
    pub(crate) rest: String,
    pub(crate) headers: HeaderMap,
    pub(crate) deadline: Instant,
}

impl RequestSpec {
    pub(crate) fn manifest(
        method: Method,
        at: &TagOrDigest,
        freshness: Freshness,
        deadline: Instant,
    ) -> Self {
        let mut headers = HeaderMap::new();
        // On one line: some proxies forward only one of several header lines with the same name.
        let accepted = MediaType::MANIFESTS.each_ref().map(MediaType::as_str).join(", ");
        headers.extend(HeaderValue::from_str(&accepted).ok().map(|value| (ACCEPT, value)));
        let directive = match freshness {
            Freshness::Cached => None,
            Freshness::Revalidate => Some("no-cache"),
            Freshness::OnlyIfCached => Some("only-if-cached"),
        };
        headers.extend(directive.map(|directive| (CACHE_CONTROL, HeaderValue::from_static(directive))));
        let separator = if matches!(at, TagOrDigest::Tag(_)) { ':' } else { '@' };
        let name = ("manifest", format!("{separator}{at}"));
        Self { method, name, rest: format!("manifests/{at}"), headers, deadline }
    }

    pub(crate) fn blob(method: Method, digest: &Digest, range: ByteRange, deadline: Instant) -> Self {
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("*/*"))]);
        // Content addressed by digest must not be compressed in transit.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(value) = range_header(range) {
            headers.insert(RANGE, value);
        }
        let name = ("blob", format!("@{digest}"));
        Self { method, name, rest: format!("blobs/{digest}"), headers, deadline }
    }
}
