//! Content digests, as in the OCI image specification, section "Digests".
//!
//! Invariant: a [`Digest`] is always well formed, and if its algorithm is supported, its encoded part has the length
//! and alphabet of that algorithm.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A digest: `algorithm:encoded`, for example `sha256:…`.
///
/// Cheap to clone. Well-formed digests of unknown algorithms are accepted; [`Digest::algorithm`] is then `None`, and
/// no content can be verified against them.
///
/// ```
/// use kuik_core::content::Digest;
///
/// let digest = Digest::sha256(b"hello");
/// assert_eq!(
///     digest.to_string(),
///     "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
/// );
/// assert_eq!(digest.to_string().parse(), Ok(digest));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    text: Arc<str>,
    colon: usize,
}

/// The supported hash algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256, which every registry must support.
    Sha256,
    /// SHA-512, which a registry may support.
    Sha512,
}

/// Error of parsing a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDigest {
    /// There is no `:` between algorithm and encoded part.
    #[error("a digest has the form ALGORITHM:HEX, but there is no ':'")]
    NoColon,
    /// The algorithm is not of the form `[a-z0-9]+([+._-][a-z0-9]+)*`.
    #[error("the digest's algorithm has an invalid character at byte {0}")]
    Algorithm(usize),
    /// The encoded part has a character outside its algorithm's alphabet.
    #[error("the digest's encoded part has an invalid character at byte {0}")]
    Encoded(usize),
    /// The encoded part does not have the length that its algorithm requires.
    #[error("a {algorithm} digest has {expected} hex digits, found {found}")]
    Length {
        /// The algorithm's name.
        algorithm: &'static str,
        /// The required number of hex digits.
        expected: usize,
        /// The actual number.
        found: usize,
    },
}

impl Algorithm {
    /// The algorithm's name as in digests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Number of hex digits in its digests.
    #[must_use]
    pub const fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

impl Digest {
    /// Computes the SHA-256 digest of `content`.
    #[must_use]
    pub fn sha256(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_hash(Algorithm::Sha256, &sha2::Sha256::digest(content))
    }

    /// Computes the digest of `content` with `algorithm`.
    #[must_use]
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        use sha2::Digest as _;
        match algorithm {
            Algorithm::Sha256 => Self::sha256(content),
            Algorithm::Sha512 => Self::from_hash(algorithm, &sha2::Sha512::digest(content)),
        }
    }

    /// Creates a digest from a hash that was computed with `algorithm`.
    pub(crate) fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let name = algorithm.as_str();
        let mut text = String::with_capacity(name.len() + 1 + 2 * hash.len());
        text.push_str(name);
        text.push(':');
        for byte in hash {
            for nibble in [byte >> 4, byte & 15] {
                text.extend(HEX.get(usize::from(nibble)).map(|&digit| char::from(digit)));
            }
        }
        Self { text: text.into(), colon: name.len() }
    }

    /// The whole digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The algorithm, if it is supported.
    #[must_use]
    pub fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::from_name(self.algorithm_name())
    }

    /// The algorithm's name as written.
    #[must_use]
    pub fn algorithm_name(&self) -> &str {
        self.text.get(..self.colon).unwrap_or_default()
    }

    /// The encoded part, after the colon.
    #[must_use]
    pub fn encoded(&self) -> &str {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

/// Checks `text` against the digest grammar; returns the offset of the colon.
fn check(text: &str) -> Result<usize, InvalidDigest> {
    let (name, encoded) = text.split_once(':').ok_or(InvalidDigest::NoColon)?;
    let colon = name.len();
    let mut separated = true;
    for (at, byte) in name.bytes().enumerate() {
        separated = match byte {
            b'a'..=b'z' | b'0'..=b'9' => false,
            b'+' | b'.' | b'_' | b'-' if !separated => true,
            _ => return Err(InvalidDigest::Algorithm(at)),
        };
    }
    if separated {
        return Err(InvalidDigest::Algorithm(colon));
    }
    let algorithm = Algorithm::from_name(name);
    let allowed = |byte: u8| match algorithm {
        Some(_) => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        None => byte.is_ascii_alphanumeric() || b"=_-".contains(&byte),
    };
    if let Some(at) = encoded.bytes().position(|byte| !allowed(byte)) {
        return Err(InvalidDigest::Encoded(colon + 1 + at));
    }
    match algorithm {
        Some(algorithm) if encoded.len() != algorithm.hex_len() => Err(InvalidDigest::Length {
            algorithm: algorithm.as_str(),
            expected: algorithm.hex_len(),
            found: encoded.len(),
        }),
        None if encoded.is_empty() => Err(InvalidDigest::Encoded(colon + 1)),
        _ => Ok(colon),
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text).map(|colon| Self { text: text.into(), colon })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_parse_accepts_examples_of_the_specification() {
        let hex = "a".repeat(64);
        for text in [
            format!("sha256:{hex}"),
            format!("sha512:{hex}{hex}"),
            "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8".to_owned(),
            "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564".to_owned(),
            "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        ] {
            let digest: Digest = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(digest.as_str(), text);
            assert_eq!(format!("{}:{}", digest.algorithm_name(), digest.encoded()), text);
        }
    }

    #[test]
    fn digest_parse_rejects_invalid_text_with_offset() {
        use InvalidDigest as E;
        let hex = "a".repeat(64);
        for (text, expected) in [
            ("", E::NoColon),
            ("sha256", E::NoColon),
            (":abc", E::Algorithm(0)),
            ("SHA256:abc", E::Algorithm(0)),
            ("a..b:abc", E::Algorithm(2)),
            ("a.:abc", E::Algorithm(2)),
            ("x:", E::Encoded(2)),
            ("x:a/b", E::Encoded(3)),
            ("sha256:abc", E::Length { algorithm: "sha256", expected: 64, found: 3 }),
            (&format!("sha512:{hex}"), E::Length { algorithm: "sha512", expected: 128, found: 64 }),
            (&format!("sha256:{}", hex.to_uppercase()), E::Encoded(7)),
            (&format!("sha256:{hex}é"), E::Encoded(71)),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(expected), "{text}");
        }
    }
}
