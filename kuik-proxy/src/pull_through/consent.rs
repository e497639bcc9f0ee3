//! Whether a blob that the store has for one repository may be read through another.
//!
//! A digest is no secret and a `HEAD` is easily answered: a registry that only says that it has a blob could open
//! another registry's. So upstream has to show it: some bytes at a place that it could not know before.

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

/// How many bytes upstream has to show.
const SAMPLE_BYTES: u64 = 1024;

impl Shared {
    /// Whether upstream shows that `repository` has the blob `digest`, of which the store has `size` bytes.
    ///
    /// # Errors
    /// Those of the upstream, `NotFound` above all.
    pub(super) async fn upstream_shows(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, SourceError> {
        let Some(sample) = sample(size) else {
            return Ok(self.upstream.blob_size(repository, digest).await?.content == size);
        };
        let range = ByteRange::From { first: sample.start, last: Some(sample.end - 1) };
        let shown = match self.upstream.blob(repository, digest, range).await {
            Ok(shown) => shown.content,
            // What it has is shorter: another blob.
            Err(error) if error.kind() == SourceErrorKind::RangeNotSatisfiable => return Ok(false),
            Err(error) => return Err(error),
        };
        if shown.range.as_ref() != Some(&sample) || shown.size.is_some_and(|shown| shown != size) {
            // It ignores ranges, or speaks of another blob: it is asked for the whole one instead.
            return Ok(false);
        }
        let shown = shown.body.try_fold(BytesMut::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        });
        Ok(shown.await? == self.store.peek_blob(digest, sample).await?)
    }
}

/// Where some bytes of `size` are, at random; `None` where there are none.
fn sample(size: u64) -> Option<Range<u64>> {
    let length = size.min(SAMPLE_BYTES);
    let start = RandomState::new().hash_one(size).checked_rem(size - length + 1)?;
    (length > 0).then_some(start..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lie_within_the_blob() {
        assert_eq!(sample(0), None);
        for size in [1, 2, 1023, 1024, 1025, 1 << 40] {
            let sample = sample(size).unwrap();
            assert_eq!(sample.end - sample.start, size.min(SAMPLE_BYTES));
            assert!(sample.end <= size);
        }
    }
}
