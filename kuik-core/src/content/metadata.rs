//! Repository metadata: small texts stored next to a repository's content, for example when they were last pulled.
//!
//! Metadata is not content: registry clients cannot see it, it has no digest, and the last write wins. Readers must
//! validate it, because a crash may leave it empty.

use std::{fmt, str::FromStr};

/// The maximum size of a metadata entry in bytes: that of a retention document, with its header.
pub const MAX_METADATA_BYTES: usize = crate::retention::MAX_DOCUMENT_BYTES + 4096;

/// The maximum length of a metadata name in bytes: the name is part of a file name.
const MAX_NAME_BYTES: usize = 200;

/// Name of a metadata entry: up to 200 letters, digits and `.:_+-`, beginning with a letter.
///
/// A prefix for the kind of entry followed by a tag or a digest of a supported algorithm fits into a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetadataName(String);

/// A text is not a [`MetadataName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a metadata name: it has at most 200 letters, digits and .:_+- and begins with a letter")]
pub struct InvalidMetadataName;

impl MetadataName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MetadataName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MetadataName {
    type Err = InvalidMetadataName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".:_+-".contains(&byte);
        let well_formed = text.len() <= MAX_NAME_BYTES
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
            && text.bytes().all(allowed);
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidMetadataName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_name_accepts_only_safe_file_names() {
        let longest = format!("mark.sha512:{}", "f".repeat(128));
        for text in ["pulls", "mark.1.25_x-Y", &longest] {
            assert_eq!(text.parse::<MetadataName>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "1", &"a".repeat(201)] {
            assert_eq!(text.parse::<MetadataName>(), Err(InvalidMetadataName), "{text}");
        }
    }
}
