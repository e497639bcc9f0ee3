//! Byte ranges of blobs: the single ranges of RFC 9110, section 14.

use std::ops::Range;

/// The requested bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ByteRange {
    /// All bytes.
    #[default]
    Full,
    /// From the first byte to the last byte (inclusive), or to the end.
    From {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte; `None` is the end.
        last: Option<u64>,
    },
    /// The last `length` bytes.
    Suffix {
        /// Number of bytes, counted from the end.
        length: u64,
    },
}

/// A range lies entirely outside the content: `416 Range Not Satisfiable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the range lies outside the content, which has {size} bytes")]
pub struct InvalidRange {
    /// The size of the content.
    pub size: u64,
}

impl ByteRange {
    /// Parses the value of a `Range` header.
    ///
    /// Anything but one well-formed byte range means [`ByteRange::Full`]: RFC 9110 lets a server ignore such a
    /// header, and clients then get the whole content with status 200. A range that ends before it begins is parsed
    /// as written; it selects no bytes.
    ///
    /// ```
    /// use kuik_core::content::ByteRange;
    ///
    /// assert_eq!(ByteRange::from_header("bytes=5-"), ByteRange::From { first: 5, last: None });
    /// assert_eq!(ByteRange::from_header("bytes=-5"), ByteRange::Suffix { length: 5 });
    /// assert_eq!(ByteRange::from_header("bytes=1-2,4-5"), ByteRange::Full);
    /// ```
    #[must_use]
    pub fn from_header(value: &str) -> Self {
        Self::parse(value).unwrap_or(Self::Full)
    }

    fn parse(value: &str) -> Option<Self> {
        let (unit, set) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        if first.is_empty() {
            return Some(Self::Suffix { length: number(last)? });
        }
        let first = number(first)?;
        match last {
            "" => Some(Self::From { first, last: None }),
            last => Some(Self::From { first, last: Some(number(last)?) }),
        }
    }

    /// Resolves the range to offsets into content of `size` bytes.
    ///
    /// # Errors
    /// Returns an error if the range selects no byte of the content.
    pub fn resolve(self, size: u64) -> Result<Range<u64>, InvalidRange> {
        let range = match self {
            Self::Full => return Ok(0..size),
            Self::From { first, last } => first..last.map_or(size, |last| last.saturating_add(1)).min(size),
            Self::Suffix { length } => size.saturating_sub(length)..size,
        };
        if range.start < range.end { Ok(range) } else { Err(InvalidRange { size }) }
    }
}

/// Parses digits only (`parse` alone would accept a sign).
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_header_parses_single_ranges_and_ignores_others() {
        for (header, expected) in [
            ("bytes=0-0", ByteRange::From { first: 0, last: Some(0) }),
            ("Bytes = 7-9", ByteRange::From { first: 7, last: Some(9) }),
            ("bytes=7-9", ByteRange::From { first: 7, last: Some(9) }),
            ("bytes=9-7", ByteRange::From { first: 9, last: Some(7) }),
            ("bytes=+1-2", ByteRange::Full),
            ("bytes=-", ByteRange::Full),
            ("items=0-1", ByteRange::Full),
            ("bytes=0-18446744073709551616", ByteRange::Full),
            ("", ByteRange::Full),
        ] {
            assert_eq!(ByteRange::from_header(header), expected, "{header}");
        }
    }

    #[test]
    fn resolve_clamps_range_to_content_size() {
        let from = |first, last| ByteRange::From { first, last };
        for (range, size, expected) in [
            (ByteRange::Full, 0, Ok(0..0)),
            (from(2, None), 10, Ok(2..10)),
            (from(2, Some(4)), 10, Ok(2..5)),
            (from(2, Some(u64::MAX)), 10, Ok(2..10)),
            (from(9, Some(7)), 10, Err(InvalidRange { size: 10 })),
            (from(10, None), 10, Err(InvalidRange { size: 10 })),
            (ByteRange::Suffix { length: 3 }, 10, Ok(7..10)),
            (ByteRange::Suffix { length: 30 }, 10, Ok(0..10)),
            (ByteRange::Suffix { length: 0 }, 10, Err(InvalidRange { size: 10 })),
            (ByteRange::Suffix { length: 1 }, 0, Err(InvalidRange { size: 0 })),
        ] {
            assert_eq!(range.resolve(size), expected, "{range:?} of {size}");
        }
    }
}
