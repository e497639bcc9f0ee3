//! Notes: small texts that are kept beside a repository's content, such as what is pinned.
//!
//! They are no content: no client of the registry sees them, they have no digest, and the last write wins. Whoever
//! reads one checks it, because a crash may have left it empty.

use std::{fmt, str::FromStr};

/// The largest note that a store keeps, in bytes.
pub const MAX_NOTE_BYTES: usize = 1 << 20;

/// The longest name of a note, in bytes: it is part of the name of a file.
const MAX_NAME_BYTES: usize = 200;

/// The name of a note: up to 200 letters, digits and `.:_+-`, of which the first is a letter.
///
/// Tags and digests of the algorithms that can be computed fit behind a prefix that says what the note is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NoteName(String);

/// A text that is no [`NoteName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a note: it is at most 200 letters, digits and .:_+- and begins with a letter")]
pub struct InvalidNoteName;

impl NoteName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NoteName {
    type Err = InvalidNoteName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".:_+-".contains(&byte);
        let well_formed = text.len() <= MAX_NAME_BYTES
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
            && text.bytes().all(allowed);
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidNoteName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_files() {
        let longest = format!("mark.sha512:{}", "f".repeat(128));
        for text in ["pulls", "mark.1.25_x-Y", &longest] {
            assert_eq!(text.parse::<NoteName>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "1", &"a".repeat(201)] {
            assert_eq!(text.parse::<NoteName>(), Err(InvalidNoteName), "{text}");
        }
    }
}
