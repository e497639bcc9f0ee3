//! Parse errors of image references: the problem, its byte offset, and what is allowed there.
//!
//! A [`ReferenceError`] contains no text and allocates nothing, because rejecting hostile input must be as cheap as
//! accepting valid input.

use std::fmt;

/// A text is not an image reference.
///
/// ```
/// use kuik_core::reference::{ImageReference, ReferenceErrorKind};
///
/// let error = ImageReference::parse("quay.io/App:1").unwrap_err();
/// assert_eq!((error.kind(), error.at()), (ReferenceErrorKind::UpperCase, 8));
/// assert_eq!(
///     error.to_string(),
///     "'A' at byte 8 is an upper-case letter, in a repository's path: it has lower-case letters and digits, with \
///      '.', '_', '__' or dashes between them, in parts divided by '/'"
/// );
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReferenceError {
    kind: ReferenceErrorKind,
    at: usize,
    found: Option<char>,
}

/// Kind of a [`ReferenceError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReferenceErrorKind {
    /// The text is empty.
    Empty,
    /// The text is exactly 64 hex digits: an image identifier, which names no repository.
    Identifier,
    /// The text begins with a URL scheme.
    Scheme,
    /// The registry's host has an invalid character.
    Host,
    /// The registry's name could also be part of a path.
    BareHost,
    /// The registry's port is not a number.
    Port,
    /// The repository's path has an invalid character, or is incomplete.
    Path,
    /// The repository's path has an upper-case letter.
    UpperCase,
    /// The repository's path, including `library/`, is longer than [`MAX_PATH_BYTES`](super::MAX_PATH_BYTES).
    PathTooLong,
    /// The tag has an invalid character, or is empty.
    Tag,
    /// The tag is longer than 128 bytes.
    TagTooLong,
    /// The digest's algorithm has an invalid character.
    DigestAlgorithm,
    /// The digest has a character that is not a hex digit.
    DigestHex,
    /// The digest does not have the number of hex digits that its algorithm requires.
    DigestLength {
        /// The required number.
        expected: usize,
    },
    /// The digest of an unknown algorithm has fewer than 32 hex digits.
    DigestTooShort,
    /// A tag or a digest follows a repository name, but only the name is allowed.
    NotANameAlone,
}

impl ReferenceError {
    pub(super) const fn new(kind: ReferenceErrorKind, at: usize) -> Self {
        Self { kind, at, found: None }
    }

    /// Adds the character at the error's offset in `text`.
    pub(super) fn seen_in(self, text: &str) -> Self {
        Self { found: text.get(self.at..).and_then(|rest| rest.chars().next()), ..self }
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> ReferenceErrorKind {
        self.kind
    }

    /// The byte offset of the error in the text as written; the length of the text if it is incomplete.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The part of a reference that has the error, and what is allowed there.
    fn place(&self) -> (&'static str, &'static str) {
        use ReferenceErrorKind as K;
        match self.kind {
            K::Host => (
                "a registry's host",
                "it has letters, digits and inner dashes, in labels divided by '.', or is an IPv6 address in brackets",
            ),
            K::Port => ("a registry's port", "it has digits"),
            K::Tag | K::TagTooLong => {
                ("a tag", "it has letters, digits, '_', '.' and '-', and does not begin with '.' or '-'")
            }
            K::DigestAlgorithm => (
                "a digest's algorithm",
                "it has lower-case letters and digits, in parts that begin with a letter and are divided by \
                 '+', '.', '_' or '-', and ends with ':'",
            ),
            K::DigestHex | K::DigestLength { .. } | K::DigestTooShort => {
                ("a digest", "after its ':' it has hex digits, of sha256, sha384 and sha512 in lower case")
            }
            _ => (
                "a repository's path",
                "it has lower-case letters and digits, with '.', '_', '__' or dashes between them, in parts \
                 divided by '/'",
            ),
        }
    }
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ReferenceErrorKind as K;
        let Self { kind, at, found } = self;
        let (place, allowed) = self.place();
        match kind {
            K::Empty => {
                write!(f, "nothing at byte {at}: an image is written [HOST[:PORT]/]PATH[:TAG][@DIGEST]")
            }
            K::Identifier => write!(
                f,
                "only 64 hex digits from byte {at}: that is an image's identifier, and a repository's name is wanted"
            ),
            K::Scheme => {
                write!(f, "a scheme ends at byte {at}: an image begins with its registry's host, or its path")
            }
            K::BareHost => write!(
                f,
                "the text ends at byte {at} with no '.', ':' or upper-case letter: it could be part of a path, and a \
                 registry's name cannot, except 'localhost'"
            ),
            K::PathTooLong => write!(
                f,
                "the repository's path passes {} bytes at byte {at}, 'library/' included",
                super::MAX_PATH_BYTES
            ),
            K::TagTooLong => write!(f, "the tag passes {} bytes at byte {at}", super::MAX_TAG_BYTES),
            K::DigestLength { expected } => {
                write!(f, "the digest ends at byte {at}: its algorithm has {expected} hex digits")
            }
            K::DigestTooShort => {
                write!(f, "the digest ends at byte {at}: it has {} hex digits or more", super::MIN_HEX_DIGITS)
            }
            K::NotANameAlone => {
                write!(f, "a tag or a digest at byte {at}: only a repository's name is wanted")
            }
            K::UpperCase => {
                let letter = found.unwrap_or('?');
                write!(f, "{letter:?} at byte {at} is an upper-case letter, in {place}: {allowed}")
            }
            K::Host | K::Port | K::Path | K::Tag | K::DigestAlgorithm | K::DigestHex => match found {
                Some(found) => write!(f, "{found:?} at byte {at} cannot stand in {place}: {allowed}"),
                None => write!(f, "the text ends at byte {at}, within {place}: {allowed}"),
            },
        }
    }
}

impl std::error::Error for ReferenceError {}
