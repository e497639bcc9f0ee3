//! The grammar of references, one function per production.
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
//! It is that of the distribution project's `reference` package, read as `ParseNormalizedNamed` reads it; digests
//! of unknown algorithms, which that refuses, are accepted where they are well formed.
//!
//! A production takes the whole text and the byte where it begins, and answers the byte where it ends, or an error
//! at the first byte that it cannot have there. It looks one byte ahead and never back: a text is read once, but for
//! its first part, which has to be seen whole to tell a registry from a path.

use super::error::{ReferenceError, ReferenceErrorKind as Kind};

/// How many bytes a repository's path may have in its normalised form; the registry is not counted.
pub const MAX_PATH_BYTES: usize = 255;
/// How many bytes a tag may have.
pub const MAX_TAG_BYTES: usize = 128;
/// How few hex digits a digest of an unknown algorithm may have.
pub const MIN_HEX_DIGITS: usize = 32;

/// Where a production ends.
type End = Result<usize, ReferenceError>;

/// Where the first part of `text` ends, if it is a registry and not the beginning of a path.
pub(super) fn registry_ahead(text: &[u8]) -> Option<usize> {
    let slash = text.iter().position(|byte| matches!(byte, b'/' | b'@'))?;
    (byte(text, slash) == b'/' && is_registry(text.get(..slash)?)).then_some(slash)
}

/// Whether the first of several parts is a registry: it could not be part of a path (a `:`, an upper-case letter)
/// or looks like a host's name (a `.`, `localhost`).
pub(super) fn is_registry(part: &[u8]) -> bool {
    part.iter().any(|byte| matches!(byte, b'.' | b':' | b'A'..=b'Z')) || part == b"localhost"
}

/// `registry`, and nothing else; one that can be told from a path.
pub(super) fn registry_alone(text: &[u8]) -> Result<(), ReferenceError> {
    if is_registry(text) { registry(text, text.len()) } else { fault(Kind::BareHost, text.len()) }
}

/// `registry`, which has to end at byte `end`.
///
/// A dotted name with an underscore in it is no host by the grammar above, but the reference implementation and the
/// runtimes take it for one, as long as it could be part of a path.
pub(super) fn registry(text: &[u8], end: usize) -> Result<(), ReferenceError> {
    let result = host(text, 0).and_then(|at| port(text, at, end));
    if result.is_err() && component(text, 0) == Ok(end) { Ok(()) } else { result }
}

/// Whether the whole text is a host's name and could stand in a path.
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

/// `path`, behind which a tag, a digest or nothing follows.
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

/// `path`, and nothing else.
pub(super) fn path_alone(text: &[u8]) -> Result<(), ReferenceError> {
    match path(text, 0)? {
        end if end == text.len() => Ok(()),
        end => fault(Kind::Path, end),
    }
}

/// `tag`, behind which a digest or nothing follows.
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

/// `tag`, and nothing else.
pub(super) fn tag_alone(text: &[u8]) -> Result<(), ReferenceError> {
    match tag(text, 0)? {
        end if end == text.len() => Ok(()),
        end => fault(Kind::Tag, end),
    }
}

/// `digest`, behind which nothing follows.
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

/// `algorithm`, behind which a colon follows.
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

/// The byte behind `sign`, where it stands at `at`.
pub(super) fn behind(sign: u8, text: &[u8], at: usize) -> Option<usize> {
    (byte(text, at) == sign).then_some(at + 1)
}

/// The byte at `at`; a NUL, which no production has, where the text has ended.
fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// Where the run of bytes of a `class` ends that begins at `start`; it may be empty.
fn many(text: &[u8], start: usize, class: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    start + rest.iter().position(|&byte| !class(byte)).unwrap_or(rest.len())
}

/// Where the run of bytes of a `class` ends that begins at `start`; an error of `kind` where it is empty.
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
