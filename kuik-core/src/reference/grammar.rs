//! Grammar of image references, one function per production.
//!
//! ```text
//! reference      = [ registry "/" ] path [ ":" tag ] [ "@" digest ]
//! registry       = host [ ":" 1*DIGIT ]
//! host           = host-name | "[" 1*( HEX | ":" ) "]"
//! host-name      = label *( "." label )
//! label          = 1*ALNUM *( 1*"-" 1*ALNUM )
//! path           = component *( "/" component )
//! component      = 1*LOWER *( separator 1*LOWER )       LOWER: a-z 0-9
//! separator      = "." | "_" | "__" | 1*"-"
//! tag            = WORD 0*127( WORD | "." | "-" )       WORD: A-Z a-z 0-9 _
//! digest         = algorithm ":" 32*HEX                 sha256: 64, sha384: 96, sha512: 128, in lower case
//! algorithm      = part *( ( "+" | "." | "_" | "-" ) part )
//! part           = a-z *( a-z | 0-9 )
//! ```
//!
//! This is the grammar of the distribution project's `reference` package as `ParseNormalizedNamed` applies it, except
//! that well-formed digests of unknown algorithms are accepted.
//!
//! A production takes the whole text and its start offset, and returns its end offset, or an error at the first
//! invalid byte. It has one byte of lookahead and does not backtrack: a text is read once, except for its first part,
//! which is scanned twice to tell a registry from a path.

use super::error::{ReferenceError, ReferenceErrorKind as Kind};

/// The maximum length in bytes of a repository's normalized path, without the registry.
pub const MAX_PATH_BYTES: usize = 255;
/// The maximum length of a tag in bytes.
pub const MAX_TAG_BYTES: usize = 128;
/// The minimum number of hex digits in a digest of an unknown algorithm.
pub const MIN_HEX_DIGITS: usize = 32;

/// End offset of a production.
type End = Result<usize, ReferenceError>;

/// Returns the end of the first part of `text`, if it is a registry and not the beginning of a path.
pub(super) fn registry_ahead(text: &[u8]) -> Option<usize> {
    let slash = text.iter().position(|byte| matches!(byte, b'/' | b'@'))?;
    (byte(text, slash) == b'/' && is_registry(text.get(..slash)?)).then_some(slash)
}

/// Whether the first of several parts is a registry: it cannot be part of a path (a `:`, an upper-case letter) or looks
/// like a host name (a `.`, `localhost`).
pub(super) fn is_registry(part: &[u8]) -> bool {
    part.iter().any(|byte| matches!(byte, b'.' | b':' | b'A'..=b'Z')) || part == b"localhost"
}

/// `registry` as the whole text; it must be distinguishable from a path.
pub(super) fn registry_alone(text: &[u8]) -> Result<(), ReferenceError> {
    if is_registry(text) { registry(text, text.len()) } else { fault(Kind::BareHost, text.len()) }
}

/// `registry`, which must end at byte `end`.
///
/// A dotted name with an underscore is not a host by the grammar above, but the reference implementation and the
/// runtimes accept it as one if it could be part of a path.
pub(super) fn registry(text: &[u8], end: usize) -> Result<(), ReferenceError> {
    let result = host(text, 0).and_then(|at| port(text, at, end));
    if result.is_err() && component(text, 0) == Ok(end) { Ok(()) } else { result }
}

/// Whether the whole text is a host name and valid in a path.
pub(super) fn is_host_in_path(text: &[u8]) -> bool {
    !text.iter().any(u8::is_ascii_uppercase) && host_name(text, 0) == Ok(text.len())
}

fn host(text: &[u8], start: usize) -> End {
    if byte(text, start) == b'[' {
        let end = many(text, start + 1, |byte| byte.is_ascii_hexdigit() || byte == b':');
        return if end > start + 1 && byte(text, end) == b']' { Ok(end + 1) } else { fault(Kind::Host, end) };
    }
    host_name(text, start)
}

fn host_name(text: &[u8], start: usize) -> End {
    let mut at = label(text, start)?;
    while byte(text, at) == b'.' {
        at = label(text, at + 1)?;
    }
    Ok(at)
}

fn label(text: &[u8], start: usize) -> End {
    let alphanumeric = |byte: u8| byte.is_ascii_alphanumeric();
    let mut at = some(text, start, alphanumeric, Kind::Host)?;
    while byte(text, at) == b'-' {
        at = some(text, many(text, at, |byte| byte == b'-'), alphanumeric, Kind::Host)?;
    }
    Ok(at)
}

/// `[ ":" 1*DIGIT ]`, up to byte `end`.
fn port(text: &[u8], start: usize, end: usize) -> Result<(), ReferenceError> {
    if start == end {
        return Ok(());
    }
    if byte(text, start) != b':' {
        return fault(Kind::Host, start);
    }
    let at = many(text, start + 1, |byte| byte.is_ascii_digit());
    match at {
        _ if at == start + 1 && text.get(at..).is_some_and(|rest| rest.starts_with(b"//")) => {
            fault(Kind::Scheme, at)
        }
        _ if at == end && at > start + 1 => Ok(()),
        _ => fault(Kind::Port, at),
    }
}

/// `path`, followed by a tag, a digest or the end.
pub(super) fn path(text: &[u8], start: usize) -> End {
    let mut at = component(text, start)?;
    while byte(text, at) == b'/' {
        at = component(text, at + 1)?;
    }
    if at == text.len() || matches!(byte(text, at), b':' | b'@') { Ok(at) } else { path_fault(text, at) }
}

fn component(text: &[u8], start: usize) -> End {
    let mut at = lower_alphanumerics(text, start)?;
    loop {
        let after_separator = match byte(text, at) {
            b'.' => at + 1,
            b'_' if byte(text, at + 1) == b'_' => at + 2,
            b'_' => at + 1,
            b'-' => many(text, at + 1, |byte| byte == b'-'),
            _ => return Ok(at),
        };
        at = lower_alphanumerics(text, after_separator)?;
    }
}

fn lower_alphanumerics(text: &[u8], start: usize) -> End {
    let end = many(text, start, |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    if end > start { Ok(end) } else { path_fault(text, end) }
}

/// `path` as the whole text.
pub(super) fn path_alone(text: &[u8]) -> Result<(), ReferenceError> {
    match path(text, 0)? {
        end if end == text.len() => Ok(()),
        end => fault(Kind::Path, end),
    }
}

/// `tag`, followed by a digest or the end.
pub(super) fn tag(text: &[u8], start: usize) -> End {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !word(byte(text, start)) {
        return fault(Kind::Tag, start);
    }
    let end = many(text, start, |byte| word(byte) || byte == b'.' || byte == b'-');
    if end - start > MAX_TAG_BYTES {
        fault(Kind::TagTooLong, start + MAX_TAG_BYTES)
    } else if end == text.len() || byte(text, end) == b'@' {
        Ok(end)
    } else {
        fault(Kind::Tag, end)
    }
}

/// `tag` as the whole text.
pub(super) fn tag_alone(text: &[u8]) -> Result<(), ReferenceError> {
    match tag(text, 0)? {
        end if end == text.len() => Ok(()),
        end => fault(Kind::Tag, end),
    }
}

/// `digest`, followed by the end.
pub(super) fn digest(text: &[u8], start: usize) -> End {
    let colon = algorithm(text, start)?;
    let lower_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let (end, expected) = match text.get(start..colon) {
        Some(b"sha256") => (many(text, colon + 1, lower_hex), Some(64)),
        Some(b"sha384") => (many(text, colon + 1, lower_hex), Some(96)),
        Some(b"sha512") => (many(text, colon + 1, lower_hex), Some(128)),
        _ => (many(text, colon + 1, |byte| byte.is_ascii_hexdigit()), None),
    };
    let length = end - (colon + 1);
    match expected {
        _ if end < text.len() => fault(Kind::DigestHex, end),
        Some(expected) if length != expected => fault(Kind::DigestLength { expected }, end),
        None if length < MIN_HEX_DIGITS => fault(Kind::DigestTooShort, end),
        _ => Ok(end),
    }
}

/// `algorithm`, followed by a colon.
fn algorithm(text: &[u8], start: usize) -> End {
    let mut at = start;
    loop {
        if !byte(text, at).is_ascii_lowercase() {
            return fault(Kind::DigestAlgorithm, at);
        }
        at = many(text, at, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        match byte(text, at) {
            b':' => return Ok(at),
            b'+' | b'.' | b'_' | b'-' => at += 1,
            _ => return fault(Kind::DigestAlgorithm, at),
        }
    }
}

/// Whether the whole text is 64 hex digits in lower case.
pub(super) fn is_identifier(text: &[u8]) -> bool {
    text.len() == 64 && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the offset after `sign`, if it is at `at`.
pub(super) fn behind(sign: u8, text: &[u8], at: usize) -> Option<usize> {
    (byte(text, at) == sign).then_some(at + 1)
}

/// Returns the byte at `at`, or NUL, which is in no production, at the end of the text.
fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// Returns the end of the possibly empty run of bytes of `class` from `start`.
fn many(text: &[u8], start: usize, class: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    start + rest.iter().position(|&byte| !class(byte)).unwrap_or(rest.len())
}

/// Returns the end of the run of bytes of `class` from `start`; an error of `kind` if it is empty.
fn some(text: &[u8], start: usize, class: impl Fn(u8) -> bool, kind: Kind) -> End {
    let end = many(text, start, class);
    if end > start { Ok(end) } else { fault(kind, end) }
}

const fn fault<T>(kind: Kind, at: usize) -> Result<T, ReferenceError> {
    Err(ReferenceError::new(kind, at))
}

fn path_fault<T>(text: &[u8], at: usize) -> Result<T, ReferenceError> {
    match byte(text, at) {
        _ if text.is_empty() => fault(Kind::Empty, at),
        b'A'..=b'Z' => fault(Kind::UpperCase, at),
        _ => fault(Kind::Path, at),
    }
}
