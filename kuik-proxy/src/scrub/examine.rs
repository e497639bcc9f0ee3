//! One look at what is kept under a digest.

use kuik_core::content::{Digest, ManagedStore, SourceError, SourceErrorKind, Verifier};

use super::pace::Pace;

/// How many bytes are read at once.
const CHUNK: u64 = 1 << 20;

/// What was found under a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Its bytes, so many.
    Intact(u64),
    /// Other bytes; what is wrong with them, for people.
    Damaged(String),
    /// Nothing: it has gone meanwhile.
    Gone,
    /// Something that nothing here can verify: an algorithm that is not known.
    Unverifiable,
}

/// Reads and hashes what is kept under `digest`, not faster than `pace` where there is one. `read` is told how many
/// bytes were read.
///
/// # Errors
/// Where the store cannot read it.
pub(super) async fn examine(
    store: &dyn ManagedStore,
    digest: &Digest,
    mut pace: Option<&mut Pace>,
    mut read: impl FnMut(u64) + Send,
) -> Result<Finding, SourceError> {
    let Some(mut verifier) = Verifier::new(digest) else { return Ok(Finding::Unverifiable) };
    let Some(size) = store.has_blob(digest).await? else { return Ok(Finding::Gone) };
    if let Some(pace) = &mut pace {
        tokio::time::sleep_until(pace.begin(tokio::time::Instant::now())).await;
    }
    let mut offset = 0;
    while offset < size {
        let chunk = match store.peek_blob(digest, offset..size.min(offset + CHUNK)).await {
            Err(error) if error.kind() == SourceErrorKind::NotFound => return Ok(Finding::Gone),
            chunk => chunk?,
        };
        let length = chunk.len() as u64;
        if length == 0 {
            return Ok(Finding::Damaged(format!("of {size} bytes it has {offset}")));
        }
        offset += length;
        read(length);
        verifier = hash(verifier, chunk).await?;
        if let Some(pace) = &mut pace {
            tokio::time::sleep_until(pace.read(length, tokio::time::Instant::now())).await;
        }
    }
    Ok(match verifier.finish() {
        Ok(verified) => Finding::Intact(verified.size()),
        Err(mismatch) => Finding::Damaged(mismatch.to_string()),
    })
}

/// Hashing a chunk takes as long as many requests.
async fn hash(mut verifier: Verifier, chunk: bytes::Bytes) -> Result<Verifier, SourceError> {
    let hashed = tokio::task::spawn_blocking(move || {
        verifier.update(&chunk);
        verifier
    });
    hashed.await.map_err(|error| {
        SourceError::caused_by(SourceErrorKind::Storage, "hash what is stored: its task ended early", error)
    })
}

#[cfg(test)]
mod tests {
    use kuik_core::testkit::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn says_what_is_kept() {
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
