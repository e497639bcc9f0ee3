//! Verification of one stored digest.

use kuik_core::content::{Digest, RegistryStore, SourceError, SourceErrorKind, Verifier};

use super::throttle::Throttle;

/// Number of bytes in one read.
const CHUNK: u64 = 1 << 20;

/// Result of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Matching bytes, with their number.
    Intact(u64),
    /// Other bytes, with a description of the mismatch.
    Damaged(String),
    /// Nothing: it was removed meanwhile.
    Gone,
    /// Bytes under a digest of an unknown algorithm.
    Unverifiable,
}

/// Reads and hashes the bytes stored under `digest`, not faster than `throttle` if there is one. `read` receives the
/// size of each chunk.
///
/// # Errors
/// Fails if the store cannot read it.
pub(super) async fn examine(
    store: &dyn RegistryStore,
    digest: &Digest,
    mut throttle: Option<&mut Throttle>,
    mut read: impl FnMut(u64) + Send,
) -> Result<Finding, SourceError> {
    let Some(mut verifier) = Verifier::new(digest) else { return Ok(Finding::Unverifiable) };
    let Some(size) = store.has_blob(digest).await? else { return Ok(Finding::Gone) };
    if let Some(throttle) = &mut throttle {
        tokio::time::sleep_until(throttle.begin(tokio::time::Instant::now())).await;
    }
    let mut offset = 0;
    while offset < size {
        let chunk = match store.read_stored(digest, offset..size.min(offset + CHUNK)).await {
            Err(error) if error.kind() == SourceErrorKind::NotFound => return Ok(Finding::Gone),
            chunk => chunk?,
        };
        let length = chunk.len() as u64;
        if length == 0 {
            return Ok(Finding::Damaged(format!("truncated to {offset} of {size} bytes")));
        }
        offset += length;
        read(length);
        verifier = hash(verifier, chunk).await?;
        if let Some(throttle) = &mut throttle {
            tokio::time::sleep_until(throttle.read(length, tokio::time::Instant::now())).await;
        }
    }
    Ok(match verifier.finish() {
        Ok(verified) => Finding::Intact(verified.size()),
        Err(mismatch) => Finding::Damaged(mismatch.to_string()),
    })
}

/// Hashes on the blocking pool: a chunk takes as long as many requests.
async fn hash(mut verifier: Verifier, chunk: bytes::Bytes) -> Result<Verifier, SourceError> {
    let hashed = tokio::task::spawn_blocking(move || {
        verifier.update(&chunk);
        verifier
    });
    hashed.await.map_err(|error| {
        SourceError::caused_by(SourceErrorKind::Storage, "hash stored bytes: the task ended early", error)
    })
}

#[cfg(test)]
mod tests {
    use kuik_testkit::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn examine_reports_the_state_of_stored_bytes() {
        let store = MemoryStore::new();
        let content = vec![7; 3 * usize::try_from(CHUNK).unwrap() + 1];
        let digest = Digest::sha256(&content);
        let other: Digest = "other:abc".parse().unwrap();
        let look = async |digest: &Digest| examine(&store, digest, None, |_| {}).await.unwrap();
        assert_eq!(look(&digest).await, Finding::Gone);
        store.damage(&digest, content.clone());
        assert_eq!(look(&digest).await, Finding::Intact(content.len() as u64));
        let mut flipped = content.clone();
        flipped[2 << 20] ^= 1;
        for damaged in [flipped, content[1..].to_vec(), [&content[..], &[7]].concat(), Vec::new()] {
            store.damage(&digest, damaged);
            assert!(matches!(look(&digest).await, Finding::Damaged(_)));
        }
        store.damage(&Digest::sha256(b""), "");
        assert_eq!(look(&Digest::sha256(b"")).await, Finding::Intact(0));
        store.damage(&other, "anything");
        assert_eq!(look(&other).await, Finding::Unverifiable);
    }
}
