//! Digest verification: the only way to create a [`Verified`] witness is to hash every byte.
//!
//! A store takes the witness as an argument, so that unhashed content cannot be published by mistake.

use sha2::Digest as _;

use super::{Algorithm, Digest};

/// Streaming verifier: hashes content and compares the hash with the requested digest.
///
/// ```
/// use kuik_core::content::{Digest, Verifier};
///
/// let expected = Digest::sha256(b"hello");
/// let mut verifier = Verifier::new(&expected).expect("sha256 can be computed");
/// verifier.update(b"hel");
/// verifier.update(b"lo");
/// assert_eq!(verifier.finish().map(|verified| verified.size()), Ok(5));
/// ```
#[derive(Clone)]
pub struct Verifier {
    expected: Digest,
    hashing: Hashing,
}

/// Streaming hasher, for content whose expected digest is known only at the end.
#[derive(Clone)]
pub struct Hashing {
    hasher: Hasher,
    size: u64,
}

#[derive(Clone)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

/// Witness that `size` bytes were hashed, and that their digest is `digest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    digest: Digest,
    size: u64,
}

/// The bytes do not match the digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("digest mismatch: {size} bytes have digest {actual}, expected {expected}")]
pub struct DigestMismatch {
    /// The requested digest.
    pub expected: Digest,
    /// The digest of the received bytes.
    pub actual: Digest,
    /// Number of received bytes.
    pub size: u64,
}

impl Verifier {
    /// Creates a verifier for `expected`; `None` if its algorithm is not supported.
    #[must_use]
    pub fn new(expected: &Digest) -> Option<Self> {
        Some(Self { expected: expected.clone(), hashing: Hashing::new(expected.algorithm()?) })
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hashing.update(bytes);
    }

    /// Compares the computed digest with the expected one.
    ///
    /// # Errors
    /// Returns an error if the digests differ.
    pub fn finish(self) -> Result<Verified, DigestMismatch> {
        self.hashing.verify(&self.expected)
    }
}

impl Hashing {
    /// Creates a hasher.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let hasher = match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        };
        Self { hasher, size: 0 }
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
        self.size += bytes.len() as u64;
    }

    /// Number of hashed bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The algorithm of the hash.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.hasher {
            Hasher::Sha256(_) => Algorithm::Sha256,
            Hasher::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Compares the computed digest with `expected`.
    ///
    /// # Errors
    /// Returns an error if the digests differ, or if `expected` has another algorithm.
    pub fn verify(self, expected: &Digest) -> Result<Verified, DigestMismatch> {
        let actual = match self.hasher {
            Hasher::Sha256(hasher) => Digest::from_hash(Algorithm::Sha256, &hasher.finalize()),
            Hasher::Sha512(hasher) => Digest::from_hash(Algorithm::Sha512, &hasher.finalize()),
        };
        if actual == *expected {
            Ok(Verified { digest: actual, size: self.size })
        } else {
            Err(DigestMismatch { expected: expected.clone(), actual, size: self.size })
        }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("expected", &self.expected)
            .field("size", &self.hashing.size)
            .finish()
    }
}

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hashing")
            .field("algorithm", &self.algorithm())
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Verified {
    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Number of hashed bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifier_rejects_bytes_of_other_digest() {
        let expected = Digest::sha256(b"right");
        let mut verifier = Verifier::new(&expected).unwrap();
        verifier.update(b"wrong");
        let mismatch = verifier.finish().unwrap_err();
        assert_eq!((mismatch.expected, mismatch.size), (expected, 5));
        assert_eq!(mismatch.actual, Digest::sha256(b"wrong"));
    }

    #[test]
    fn verifier_supports_sha512() {
        // `printf hello | sha512sum`
        let text = "sha512:9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7\
                    2323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043";
        let mut verifier = Verifier::new(&text.parse().unwrap()).unwrap();
        verifier.update(b"hello");
        assert!(verifier.finish().is_ok());
    }

    #[test]
    fn verifier_new_returns_none_for_unknown_algorithm() {
        assert!(Verifier::new(&"md5:d41d8cd98f00b204e9800998ecf8427e".parse().unwrap()).is_none());
    }
}
