//! Identifier of a cluster at its cache.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The maximum length in bytes: that of a DNS label.
const MAX_BYTES: usize = 63;

/// Identifier of a cluster: up to 63 lower-case letters, digits and `.-_`, beginning with a letter or a digit.
///
/// The controllers use the UID of the namespace `kube-system`. Cheap to clone.
///
/// ```
/// use kuik_core::retention::ClusterId;
///
/// let id: ClusterId = "7a1e7e0e-8a52-4c9a-9a5c-3a2f8b1f2c11".parse()?;
/// assert_eq!(id.as_str().len(), 36);
/// assert!("../kube-system".parse::<ClusterId>().is_err());
/// # Ok::<(), kuik_core::retention::InvalidClusterId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(Arc<str>);

/// A text is not a [`ClusterId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a cluster ID: it has 1 to 63 lower-case letters, digits and .-_ and begins with a letter or a digit"
)]
pub struct InvalidClusterId;

impl ClusterId {
    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClusterId {
    type Err = InvalidClusterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        let well_formed = text.len() <= MAX_BYTES
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && text.bytes().all(allowed);
        if well_formed { Ok(Self(text.into())) } else { Err(InvalidClusterId) }
    }
}

impl Serialize for ClusterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ClusterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_id_accepts_only_safe_names() {
        for text in ["a", "0", "7a1e7e0e-8a52-4c9a-9a5c-3a2f8b1f2c11", "prod.eu_1", &"a".repeat(63)] {
            assert_eq!(text.parse::<ClusterId>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", "-a", "a/b", "A", "a b", "ä", "%2e", &"a".repeat(64)] {
            assert_eq!(text.parse::<ClusterId>(), Err(InvalidClusterId), "{text}");
        }
    }
}
