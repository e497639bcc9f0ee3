//! `Content-Range` of an upload's chunk: OCI distribution specification, section "Pushing a blob in chunks". The
//! format is `FIRST-LAST`, both inclusive; RFC 9110's `bytes FIRST-LAST/SIZE` is accepted too.

use http::{HeaderMap, header};

/// Byte range of a chunk in the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkRange {
    pub(super) first: u64,
    /// Number of bytes: at least one.
    pub(super) length: u64,
}

/// Error for an invalid `Content-Range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid Content-Range of a chunk: expected FIRST-LAST, both counted from 0")]
pub(super) struct InvalidChunkRange;

impl ChunkRange {
    /// Parses the header, if there is one: a body without it continues at the current offset.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, InvalidChunkRange> {
        let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
        value.to_str().ok().and_then(Self::parse).map(Some).ok_or(InvalidChunkRange)
    }

    fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        let range = value.strip_prefix("bytes").map_or(value, |rest| rest.trim_start_matches(['=', ' ']));
        let range = range.split_once('/').map_or(range, |(range, _)| range);
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let length = last.checked_sub(first)?.checked_add(1)?;
        Some(Self { first, length })
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_parsed_and_others_refused() {
        let range = |first, length| Some(ChunkRange { first, length });
        for (value, expected) in [
            ("0-0", range(0, 1)),
            ("5-9", range(5, 5)),
            ("bytes 5-9/10", range(5, 5)),
            ("bytes=5-9/*", range(5, 5)),
            ("9-5", None),
            ("-5", None),
            ("5-", None),
            ("+5-9", None),
            ("5", None),
            ("", None),
            ("0-18446744073709551615", None),
            ("0-18446744073709551616", None),
        ] {
            assert_eq!(ChunkRange::parse(value), expected, "{value}");
        }
    }
}
