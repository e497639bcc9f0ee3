//! Parsers for the response headers of registries: pure functions that ignore invalid values.

use std::ops::Range;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LINK},
};

use super::status;
use crate::content::{
    ByteRange, CacheStatus, Descriptor, Digest, MAX_MANIFEST_BYTES, MediaType, SourceErrorKind, TagOrDigest,
};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Returns the descriptor from the headers of a manifest; `None` if they are incomplete.
pub(crate) fn descriptor_of(at: &TagOrDigest, headers: &HeaderMap) -> Option<Descriptor> {
    let size = content_length(headers).filter(|size| (1..=MAX_MANIFEST_BYTES as u64).contains(size))?;
    let media_type = media_type(headers).filter(|sent| MediaType::MANIFESTS.contains(sent))?;
    let digest = match at {
        TagOrDigest::Tag(_) => content_digest(headers)?,
        TagOrDigest::Digest(digest) => content_digest(headers).unwrap_or_else(|| digest.clone()),
    };
    Some(Descriptor::new(media_type, digest, size))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

pub(crate) fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    text(headers, CONTENT_TYPE).map(MediaType::from_header)
}

pub(crate) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, CONTENT_DIGEST)?.parse().ok()
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, CONTENT_LENGTH)?.parse().ok()
}

/// Parses `Content-Range: bytes FIRST-LAST/SIZE` into offsets and the total size.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(Range<u64>, Option<u64>)> {
    let (range, size) = text(headers, CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    let end = last.checked_add(1)?;
    (first < end && size.is_none_or(|size| end <= size)).then_some((first..end, size))
}

/// Returns whether the range of the response is the requested one.
pub(crate) fn is_requested_range(requested: ByteRange, sent: &Range<u64>, size: Option<u64>) -> bool {
    match (requested.resolve(size.unwrap_or(u64::MAX)), size) {
        (Ok(meant), Some(_)) => meant == *sent,
        // If the total size is unknown, only the start of a range can be compared.
        (_, None) => match requested {
            ByteRange::From { first, last } => {
                sent.start == first && last.is_none_or(|last| sent.end <= last.saturating_add(1))
            }
            _ => false,
        },
        (Err(_), _) => false,
    }
}

/// Returns the cache status of a response from another kuik (RFC 9211). Its cache hits count as hits here.
pub(crate) fn cache_status(headers: &HeaderMap) -> CacheStatus {
    let mut parameters = text(headers, CACHE_STATUS).unwrap_or_default().split(';').map(str::trim);
    if parameters.next() != Some("kuik") {
        return CacheStatus::Upstream;
    }
    match parameters.next() {
        Some("hit") => CacheStatus::Cache,
        Some("fwd=stale") => {
            let answer = parameters.next().and_then(|last| last.strip_prefix("fwd-status="));
            let status = answer.and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
            CacheStatus::Stale(status.map_or(SourceErrorKind::Unavailable, status::kind))
        }
        _ => CacheStatus::Upstream,
    }
}

/// Returns whether the response is a web page, such as that of a captive portal or a front end.
pub(crate) fn is_web_page(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|sent| sent.as_str() == "text/html")
}

pub(crate) fn range_header(range: ByteRange) -> Option<HeaderValue> {
    let value = match range {
        ByteRange::Full => return None,
        ByteRange::From { first, last: None } => format!("bytes={first}-"),
        ByteRange::From { first, last: Some(last) } => format!("bytes={first}-{last}"),
        ByteRange::Suffix { length } => format!("bytes=-{length}"),
    };
    HeaderValue::from_str(&value).ok()
}

/// Returns whether a `Link` header has a next page (RFC 8288).
pub(crate) fn has_next(headers: &HeaderMap) -> bool {
    headers.get_all(LINK).iter().any(|value| {
        let spaceless: String =
            value.as_bytes().iter().map(|&byte| char::from(byte.to_ascii_lowercase())).collect();
        let spaceless = spaceless.replace([' ', '\t'], "");
        spaceless.contains(";rel=\"next\"") || spaceless.contains(";rel=next")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn range_of_response_is_compared_with_request() {
        let sent = |value: &str| content_range(&headers(CONTENT_RANGE, value));
        assert_eq!(sent("bytes 0-4/10"), Some((0..5, Some(10))));
        assert_eq!(sent("bytes 5-9/*"), Some((5..10, None)));
        for malformed in
            ["bytes 5-4/10", "bytes 0-10/10", "bytes */10", "items 0-1/2", "bytes 0-18446744073709551615/*"]
        {
            assert_eq!(sent(malformed), None, "{malformed}");
        }
        let from = |first, last| ByteRange::From { first, last };
        for (requested, range, size, expected) in [
            (from(2, None), 2..10, Some(10), true),
            (from(2, Some(4)), 2..5, Some(10), true),
            (from(2, Some(40)), 2..10, Some(10), true),
            (from(2, Some(4)), 2..10, Some(10), false),
            (from(2, None), 0..10, Some(10), false),
            (from(2, Some(4)), 2..5, None, true),
            (from(2, Some(4)), 3..5, None, false),
            (ByteRange::Suffix { length: 3 }, 7..10, Some(10), true),
            (ByteRange::Suffix { length: 3 }, 7..10, None, false),
        ] {
            assert_eq!(
                is_requested_range(requested, &range, size),
                expected,
                "{requested:?} {range:?} {size:?}"
            );
        }
    }

    #[test]
    fn cache_status_is_read_from_kuik_only() {
        for (value, expected) in [
            ("kuik; hit", CacheStatus::Cache),
            ("kuik; fwd=stale", CacheStatus::Stale(SourceErrorKind::Unavailable)),
            ("kuik; fwd=stale; fwd-status=404", CacheStatus::Stale(SourceErrorKind::NotFound)),
            ("cdn; fwd=stale", CacheStatus::Upstream),
            ("kuik;fwd=stale;fwd-status=4", CacheStatus::Stale(SourceErrorKind::Unavailable)),
            ("kuik; fwd=miss", CacheStatus::Upstream),
            ("cdn; hit", CacheStatus::Upstream),
            ("", CacheStatus::Upstream),
        ] {
            assert_eq!(cache_status(&headers(CACHE_STATUS, value)), expected, "{value}");
        }
        assert_eq!(cache_status(&HeaderMap::new()), CacheStatus::Upstream);
    }

    #[test]
    fn link_header_reports_next_page() {
        for (value, expected) in [
            (r#"</v2/app/tags/list?n=2&last=b>; rel="next""#, true),
            ("</v2/app/tags/list>;rel=next", true),
            (r#"</v2/app/tags/list>; rel="prev""#, false),
            ("", false),
        ] {
            assert_eq!(has_next(&headers(LINK, value)), expected, "{value}");
        }
    }
}
