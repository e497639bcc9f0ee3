//! Why a text is not an image reference: what is wrong, at which byte, and what would be allowed there.
//!
//! A [`ReferenceError`] holds no text and allocates nothing, because refusing hostile input must be as cheap as
//! accepting a good one.

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

/// What is wrong with a text that is not a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReferenceErrorKind {
    /// There is nothing.
    Empty,
    /// The text is 64 hex digits and nothing else: an image's identifier, which could be of any repository.
    Identifier,
    /// The text begins like an URL.
    Scheme,
    /// The registry's host has something that a host cannot have.
    Host,
    /// A registry's name that could as well be part of a path.
    BareHost,
    /// The registry's port is not a number.
    Port,
    /// The repository's path has something that a path cannot have, or ends where something must follow.
    Path,
    /// The repository's path has an upper-case letter.
    UpperCase,
    /// The repository's path has more than [`MAX_PATH_BYTES`](super::MAX_PATH_BYTES), with its `library/`.
    PathTooLong,
    /// The tag has something that a tag cannot have, or is empty.
    Tag,
    /// The tag has more than 128 bytes.
    TagTooLong,
    /// The digest's algorithm has something that a name of an algorithm cannot have.
    DigestAlgorithm,
    /// The digest has something that is not a hex digit.
    DigestHex,
    /// The digest has not as many hex digits as its algorithm has.
    DigestLength {
        /// How many it should have.
        expected: usize,
    },
    /// The digest of an unknown algorithm has less than 32 hex digits.
    DigestTooShort,
    /// A tag or a digest follows where a repository's name alone is wanted.
    NotANameAlone,
}

impl ReferenceError {
    pub(super) const fn new(kind: ReferenceErrorKind, at: usize) -> Self {
        Self { kind, at, found: None }
    }

    /// The same error, with the character that stands in `text` where it happened.
    pub(super) fn seen_in(self, text: &str) -> Self {
        Self { found: text.get(self.at..).and_then(|rest| rest.chars().next()), ..self }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> ReferenceErrorKind {
        self.kind
    }

    /// Where it is wrong: an offset in bytes into the text as it was written; its length where more should follow.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The part of a reference that cannot have what was found, and what it can have.
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
