//! Cross-repository access: whether a blob stored for one repository may be read through another.
//!
//! A digest is not a secret and a `HEAD` is easily forged: a registry that only claims to have a blob could expose
//! another registry's. So upstream must prove that it has the blob: it returns some bytes at an offset that it could
//! not predict.

use std::{
    hash::{BuildHasher as _, RandomState},
    ops::Range,
};

use bytes::BytesMut;
use futures::TryStreamExt as _;
use kuik_core::{
    content::{ByteRange, Digest, SourceError, SourceErrorKind},
    reference::RepositoryName,
};

use super::Shared;

/// Number of bytes that upstream has to return.
const SAMPLE_BYTES: u64 = 1024;

impl Shared {
    /// Whether upstream proves that `repository` has the blob `digest`, of which the store has `size` bytes.
    ///
    /// # Errors
    /// Returns the upstream's errors, most often `NotFound`.
    pub(super) async fn upstream_proves(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, SourceError> {
        let Some(sample) = sample(size) else {
            return Ok(self.upstream.blob_size(repository, digest).await?.content == size);
        };
        let range = ByteRange::From { first: sample.start, last: Some(sample.end - 1) };
        let proof = match self.upstream.blob(repository, digest, range).await {
            Ok(proof) => proof.content,
            // Upstream's blob is shorter: it is another blob.
            Err(error) if error.kind() == SourceErrorKind::RangeNotSatisfiable => return Ok(false),
            Err(error) => return Err(error),
        };
        if proof.range.as_ref() != Some(&sample) || proof.size.is_some_and(|actual| actual != size) {
            // Upstream ignores ranges, or answers about another blob: the whole blob is fetched instead.
            return Ok(false);
        }
        let proof = proof.body.try_fold(BytesMut::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        });
        Ok(proof.await? == self.store.read_stored(digest, sample).await?)
    }
}

/// Returns a random range within `size` bytes; `None` if `size` is 0.
fn sample(size: u64) -> Option<Range<u64>> {
    let length = size.min(SAMPLE_BYTES);
    let start = RandomState::new().hash_one(size).checked_rem(size - length + 1)?;
    (length > 0).then_some(start..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_range_is_within_the_blob() {
        assert_eq!(sample(0), None);
        for size in [1, 2, 1023, 1024, 1025, 1 << 40] {
            let sample = sample(size).unwrap();
            assert_eq!(sample.end - sample.start, size.min(SAMPLE_BYTES));
            assert!(sample.end <= size);
        }
    }
}
