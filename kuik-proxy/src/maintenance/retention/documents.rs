//! Retention documents in the store: one metadata entry for each cluster.
//!
//! An entry is the text that the cluster sent, behind a line with the time of its renewal and its digest: an entry
//! that a crash has left empty or short is recognized as damaged.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use kuik_core::{
    content::{Digest, MetadataName, RegistryStore, SourceError, SourceErrorKind},
    reference::RepositoryName,
    retention::{ClusterId, RetentionDocument},
};

/// Repository of the entries: they belong to none, and content of this name does not conflict with them.
const REPOSITORY: &str = "kuik";

/// Prefix of the names of entries; the cluster ID follows.
const PREFIX: &str = "retention.";

/// Prefix of the names of damaged entries that were replaced.
const SET_ASIDE: &str = "damaged-retention.";

/// First word of an entry: the version of its format.
const FORMAT: &str = "kuik-retention-1";

/// The longest first line of an entry.
const MAX_LINE: usize = 512;

/// An entry is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored retention document is damaged: {0}")]
pub(super) struct Damaged(String);

/// A stored document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// When the cluster sent it.
    pub renewed_at: SystemTime,
    /// The document as sent.
    pub text: Bytes,
    pub document: RetentionDocument,
}

/// The documents of a store.
#[derive(Debug, Clone)]
pub(super) struct Documents(pub Arc<dyn RegistryStore>);

impl Documents {
    /// Returns the clusters that have an entry.
    pub(super) async fn clusters(&self) -> Result<BTreeSet<ClusterId>, SourceError> {
        let (repository, mut clusters) = (repository()?, BTreeSet::new());
        let mut metadata = self.0.all_metadata();
        while let Some((found, name)) = metadata.try_next().await? {
            let id = name.as_str().strip_prefix(PREFIX).filter(|_| found == repository);
            clusters.extend(id.and_then(|id| id.parse().ok()));
        }
        Ok(clusters)
    }

    /// Returns the entry of a cluster as stored.
    pub(super) async fn read(&self, cluster: &ClusterId) -> Result<Option<Bytes>, SourceError> {
        self.0.metadata(&repository()?, &name(PREFIX, cluster)?).await
    }

    /// Replaces the entry of a cluster; `None` removes it.
    pub(super) async fn write(&self, cluster: &ClusterId, entry: Option<Bytes>) -> Result<(), SourceError> {
        self.0.put_metadata(&repository()?, &name(PREFIX, cluster)?, entry).await
    }

    /// Keeps a damaged entry for inspection, under another name.
    pub(super) async fn set_aside(&self, cluster: &ClusterId, entry: Bytes) -> Result<(), SourceError> {
        self.0.put_metadata(&repository()?, &name(SET_ASIDE, cluster)?, Some(entry)).await
    }
}

fn repository() -> Result<RepositoryName, SourceError> {
    RepositoryName::local(REPOSITORY).map_err(unnamed)
}

fn name(prefix: &str, cluster: &ClusterId) -> Result<MetadataName, SourceError> {
    format!("{prefix}{cluster}").parse().map_err(unnamed)
}

fn unnamed(error: impl std::error::Error + Send + Sync + 'static) -> SourceError {
    SourceError::caused_by(SourceErrorKind::Unsupported, "name a retention document", error)
}

/// Returns the entry of a document `text`.
pub(super) fn encode(text: &[u8], renewed_at: SystemTime) -> Bytes {
    let seconds = renewed_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut entry = format!("{FORMAT} {seconds} {}\n", Digest::sha256(text)).into_bytes();
    entry.extend_from_slice(text);
    entry.into()
}

/// Parses an entry.
pub(super) fn decode(entry: &Bytes) -> Result<Stored, Damaged> {
    let damaged = |what: &str| Damaged(what.to_owned());
    let end = entry.iter().take(MAX_LINE).position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| damaged("it has no first line"))?;
    let text = entry.slice(end + 1..);
    let line = entry.get(..end).and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.into_iter().flat_map(str::split_ascii_whitespace);
    if words.next() != Some(FORMAT) {
        return Err(damaged("its format is unknown"));
    }
    let seconds = words.next().and_then(|seconds| seconds.parse().ok());
    let renewed_at =
        seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let renewed_at = renewed_at.ok_or_else(|| damaged("it has no renewal time"))?;
    if words.next() != Some(Digest::sha256(&text).as_str()) {
        return Err(damaged("its digest does not match"));
    }
    let document = RetentionDocument::parse(&text).map_err(|error| Damaged(error.to_string()))?;
    Ok(Stored { renewed_at, text, document })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_round_trips_and_damage_is_recognized() {
        let text = br#"{"repositories":{"app":{"v1":{"state":"inUse"}}}}"#;
        let renewed_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let entry = encode(text, renewed_at);
        let stored = decode(&entry).unwrap();
        assert_eq!((stored.renewed_at, &stored.text[..]), (renewed_at, &text[..]));
        assert_eq!(stored.document.len(), 1);
        for length in 0..entry.len() {
            assert!(decode(&entry.slice(..length)).is_err(), "{length}");
        }
        for damaged in ["", "\n", "kuik-retention-2 1 x\n{}", "kuik-retention-1 x y\n{}"] {
            assert!(decode(&Bytes::from(damaged)).is_err(), "{damaged}");
        }
        assert!(decode(&encode(b"[]", renewed_at)).is_err(), "it is whole, but no document");
    }
}
