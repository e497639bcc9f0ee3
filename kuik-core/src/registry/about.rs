//! What the client asks of a registry: the part of a request that does not depend on where it is sent.

use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, RANGE},
};
use tokio::time::Instant;

use super::headers::range_header;
use crate::content::{ByteRange, Digest, Freshness, MediaType, TagOrDigest};

/// What is asked.
pub(super) struct About {
    pub(super) method: Method,
    /// The kind of thing, and what follows the repository in errors.
    pub(super) name: (&'static str, String),
    /// What follows the repository in the URL.
    pub(super) rest: String,
    pub(super) headers: HeaderMap,
    pub(super) deadline: Instant,
}

impl About {
    pub(super) fn manifest(
        method: Method,
        at: &TagOrDigest,
        freshness: Freshness,
        deadline: Instant,
    ) -> Self {
        let mut headers = HeaderMap::new();
        // In one line: there are proxies that pass on one line of several with the same name.
        let accepted = MediaType::MANIFESTS.each_ref().map(MediaType::as_str).join(", ");
        headers.extend(HeaderValue::from_str(&accepted).ok().map(|value| (ACCEPT, value)));
        if freshness == Freshness::Revalidate {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let separator = if matches!(at, TagOrDigest::Tag(_)) { ':' } else { '@' };
        let name = ("manifest", format!("{separator}{at}"));
        Self { method, name, rest: format!("manifests/{at}"), headers, deadline }
    }

    pub(super) fn blob(method: Method, digest: &Digest, range: ByteRange, deadline: Instant) -> Self {
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("*/*"))]);
        // Nobody is to compress what is named by its digest.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(value) = range_header(range) {
            headers.insert(RANGE, value);
        }
        let name = ("blob", format!("@{digest}"));
        Self { method, name, rest: format!("blobs/{digest}"), headers, deadline }
    }
}
