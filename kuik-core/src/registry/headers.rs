//! What the headers of a registry's answers say: pure functions, which believe nothing that does not fit.

use std::ops::Range;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LINK},
};

use super::status;
use crate::content::{
    ByteRange, Descriptor, Digest, MAX_MANIFEST_BYTES, MediaType, Origin, SourceErrorKind, TagOrDigest,
};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The descriptor that the headers of a manifest give; `None` where they do not tell enough.
pub(super) fn described(at: &TagOrDigest, headers: &HeaderMap) -> Option<Descriptor> {
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

pub(super) fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    text(headers, CONTENT_TYPE).map(MediaType::from_header)
}

pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, CONTENT_DIGEST)?.parse().ok()
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, CONTENT_LENGTH)?.parse().ok()
}

/// `Content-Range: bytes FIRST-LAST/SIZE`, as offsets and the size of the whole.
pub(super) fn content_range(headers: &HeaderMap) -> Option<(Range<u64>, Option<u64>)> {
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

/// Whether the range that was sent is the one that was asked for.
pub(super) fn answers(asked: ByteRange, sent: &Range<u64>, size: Option<u64>) -> bool {
    match (asked.resolve(size.unwrap_or(u64::MAX)), size) {
        (Ok(meant), Some(_)) => meant == *sent,
        // Of a whole of unknown size, a beginning can be compared, an end cannot.
        (_, None) => match asked {
            ByteRange::From { first, last } => {
                sent.start == first && last.is_none_or(|last| sent.end <= last.saturating_add(1))
            }
            _ => false,
        },
        (Err(_), _) => false,
    }
}

/// Where an answer came from, where a kuik gave it (RFC 9211): what it had, this cache has as good as its own.
pub(super) fn origin(headers: &HeaderMap) -> Origin {
    let mut parameters = text(headers, CACHE_STATUS).unwrap_or_default().split(';').map(str::trim);
    match (parameters.next(), parameters.next(), parameters.next()) {
        (Some("kuik"), Some("hit"), None) => Origin::Cache,
        (Some("kuik"), Some("hit"), Some("detail=stale")) => {
            let answer = parameters.next().and_then(|last| last.strip_prefix("fwd-status="));
            let status = answer.and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
            Origin::Stale(status.map_or(SourceErrorKind::Unavailable, status::kind))
        }
        _ => Origin::Upstream,
    }
}

/// Whether the answer is a web page, as a portal or a front end gives it for whatever it is asked.
pub(super) fn is_web_page(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|sent| sent.as_str() == "text/html")
}

pub(super) fn range_header(range: ByteRange) -> Option<HeaderValue> {
    let value = match range {
        ByteRange::Full => return None,
        ByteRange::From { first, last: None } => format!("bytes={first}-"),
        ByteRange::From { first, last: Some(last) } => format!("bytes={first}-{last}"),
        ByteRange::Suffix { length } => format!("bytes=-{length}"),
    };
    HeaderValue::from_str(&value).ok()
}

/// Whether a `Link` header leads to a next page (RFC 8288).
pub(super) fn has_next(headers: &HeaderMap) -> bool {
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
    fn ranges_are_compared_with_what_was_asked() {
        let sent = |value: &str| content_range(&headers(CONTENT_RANGE, value));
        assert_eq!(sent("bytes 0-4/10"), Some((0..5, Some(10))));
        assert_eq!(sent("bytes 5-9/*"), Some((5..10, None)));
        for malformed in
            ["bytes 5-4/10", "bytes 0-10/10", "bytes */10", "items 0-1/2", "bytes 0-18446744073709551615/*"]
        {
            assert_eq!(sent(malformed), None, "{malformed}");
        }
        let from = |first, last| ByteRange::From { first, last };
        for (asked, range, size, expected) in [
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
            assert_eq!(answers(asked, &range, size), expected, "{asked:?} {range:?} {size:?}");
        }
    }

    #[test]
    fn only_a_kuik_says_what_it_had() {
        for (value, expected) in [
            ("kuik; hit", Origin::Cache),
            ("kuik;hit;detail=stale", Origin::Stale(SourceErrorKind::Unavailable)),
            ("kuik; hit; detail=stale; fwd-status=404", Origin::Stale(SourceErrorKind::NotFound)),
            ("kuik; hit; detail=stale; fwd-status=4", Origin::Stale(SourceErrorKind::Unavailable)),
            ("kuik; fwd=miss", Origin::Upstream),
            ("cdn; hit", Origin::Upstream),
            ("", Origin::Upstream),
        ] {
            assert_eq!(origin(&headers(CACHE_STATUS, value)), expected, "{value}");
        }
        assert_eq!(origin(&HeaderMap::new()), Origin::Upstream);
    }

    #[test]
    fn next_pages_are_noticed() {
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
