//! Order of verification: by digest, so that one digest is the whole position.
//!
//! A store lists its blobs in any order. Each walk picks the least digests after the last verified one, so memory is
//! bounded however many blobs there are.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use kuik_core::content::{Digest, RegistryStore, SourceError};

/// Returns the `at_most` least digests after `after` in the store, in order.
pub(super) async fn next(
    store: &dyn RegistryStore,
    after: Option<&Digest>,
    at_most: usize,
) -> Result<BTreeSet<Digest>, SourceError> {
    let mut least = BTreeSet::new();
    let mut blobs = store.blobs();
    while let Some(blob) = blobs.try_next().await? {
        let comes_later = after.is_none_or(|after| blob.digest > *after);
        let is_among_them =
            least.len() < at_most || least.last().is_some_and(|greatest| blob.digest < *greatest);
        if comes_later && is_among_them {
            least.insert(blob.digest);
            if least.len() > at_most {
                least.pop_last();
            }
        }
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use kuik_testkit::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn batches_return_each_digest_once_in_order() {
        let store = MemoryStore::new();
        let all: BTreeSet<Digest> = (0..100_u8).map(|number| Digest::sha256(&[number])).collect();
        all.iter().for_each(|digest| store.damage(digest, "anything"));
        let mut seen: Vec<Digest> = Vec::new();
        loop {
            let batch = next(&store, seen.last(), 7).await.unwrap();
            if batch.is_empty() {
                break;
            }
            assert!(batch.len() <= 7);
            seen.extend(batch);
        }
        assert!(seen.iter().eq(&all), "{seen:?}");
    }
}
