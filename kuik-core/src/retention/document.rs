//! Retention document: the images of one cluster, by repository and then by tag or digest.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map::Entry},
};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    content::{Digest, TagOrDigest},
    reference::{RepositoryName, Tag},
};

/// The maximum size of a document in bytes: about 70,000 images.
pub const MAX_DOCUMENT_BYTES: usize = 8 << 20;

/// All images of a cluster that its cache is to know.
///
/// As JSON:
///
/// ```json
/// {"repositories":{"docker.io/library/nginx":{
///   "1.25":{"state":"inUse"},
///   "1.24":{"state":"unused","expiresAt":1893456000}}}}
/// ```
///
/// Repositories are named as in pulls from the cache ([`RepositoryName::encoded`]).
///
/// ```
/// use kuik_core::{
///     content::TagOrDigest,
///     reference::RepositoryName,
///     retention::{ImageRetention, RetentionDocument},
/// };
///
/// let mut document = RetentionDocument::default();
/// let (nginx, tag) = (RepositoryName::new("docker.io", "nginx")?, TagOrDigest::Tag("1.25".parse()?));
/// document.insert(&nginx, &tag, ImageRetention::in_use());
/// let json = document.to_json();
/// assert_eq!(&json[..], br#"{"repositories":{"docker.io/library/nginx":{"1.25":{"state":"inUse"}}}}"#);
/// assert_eq!(RetentionDocument::parse(&json)?, document);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RetentionDocument {
    /// Retention by encoded repository name, and then by tag or digest.
    pub repositories: BTreeMap<String, BTreeMap<String, ImageRetention>>,
}

/// Retention of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ImageRetention {
    /// Why the image is kept.
    pub state: RetentionState,
    /// When an unused image expires, in seconds since the Unix epoch; without it, the image does not expire. It has no
    /// meaning in the other states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// Why an image is kept. An unknown state, of a newer version, is read as [`InUse`](Self::InUse).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RetentionState {
    /// A pod uses it: it is never evicted.
    InUse,
    /// It is to be kept although no pod uses it: it is never evicted.
    Retained,
    /// No pod uses it: it may be evicted, and before other images if it has expired.
    Unused,
}

/// A text is not a valid [`RetentionDocument`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDocument {
    /// It is larger than [`MAX_DOCUMENT_BYTES`].
    #[error("the retention document has {0} bytes, the maximum is {MAX_DOCUMENT_BYTES}")]
    TooLarge(usize),
    /// It is not JSON of the right form.
    #[error("the retention document is malformed: {0}")]
    Malformed(#[source] serde_json::Error),
    /// A repository name is invalid.
    #[error("{0:?} is not the name of a repository in the cache")]
    Repository(String),
    /// The name of an image in its repository is invalid.
    #[error("{0:?} is neither a tag nor a digest")]
    Image(String),
}

impl ImageRetention {
    /// A pod uses the image.
    #[must_use]
    pub fn in_use() -> Self {
        Self { state: RetentionState::InUse, expires_at: None }
    }

    /// The image is to be kept.
    #[must_use]
    pub fn retained() -> Self {
        Self { state: RetentionState::Retained, expires_at: None }
    }

    /// No pod uses the image; it expires at this time, in seconds since the Unix epoch.
    #[must_use]
    pub fn unused(expires_at: Option<u64>) -> Self {
        Self { state: RetentionState::Unused, expires_at }
    }

    /// Orders by how long the image is to be kept: the greater value prevails if an image has two.
    #[must_use]
    pub fn cmp_need(self, other: Self) -> Ordering {
        let rank = |retention: Self| match retention.state {
            RetentionState::InUse => (2, 0),
            RetentionState::Retained => (1, 0),
            RetentionState::Unused => (0, retention.expires_at.unwrap_or(u64::MAX)),
        };
        rank(self).cmp(&rank(other))
    }
}

impl<'de> Deserialize<'de> for RetentionState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match String::deserialize(deserializer)?.as_str() {
            "retained" => Self::Retained,
            "unused" => Self::Unused,
            _ => Self::InUse,
        })
    }
}

impl RetentionDocument {
    /// Adds an image. If it is known already, the longer retention prevails. A repository whose name cannot be encoded
    /// is in no cache, and is left out.
    pub fn insert(&mut self, repository: &RepositoryName, at: &TagOrDigest, retention: ImageRetention) {
        let Ok(repository) = repository.encoded() else { return };
        match self.repositories.entry(repository).or_default().entry(at.as_str().to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(retention);
            }
            Entry::Occupied(mut entry) => {
                if entry.get().cmp_need(retention).is_lt() {
                    entry.insert(retention);
                }
            }
        }
    }

    /// Returns the retention of an image, by the encoded name of its repository.
    #[must_use]
    pub fn get(&self, repository: &str, at: &str) -> Option<ImageRetention> {
        self.repositories.get(repository)?.get(at).copied()
    }

    /// Returns the number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.repositories.values().map(BTreeMap::len).sum()
    }

    /// Returns whether it has no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.repositories.values().all(BTreeMap::is_empty)
    }

    /// Returns the document as sent: equal documents have equal texts.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        // Cannot fail: the keys are strings, and no value has a custom serializer that fails.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Parses and checks a document. Unknown fields are ignored.
    ///
    /// # Errors
    /// Returns an error if the text is too large or malformed, or if it has an invalid name.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidDocument> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(InvalidDocument::TooLarge(text.len()));
        }
        let document: Self = serde_json::from_slice(text).map_err(InvalidDocument::Malformed)?;
        for (repository, images) in &document.repositories {
            if RepositoryName::local(repository).is_err() {
                return Err(InvalidDocument::Repository(repository.clone()));
            }
            let is_name = |name: &str| match name.contains(':') {
                true => name.parse::<Digest>().is_ok(),
                false => name.parse::<Tag>().is_ok(),
            };
            if let Some(image) = images.keys().find(|image| !is_name(image)) {
                return Err(InvalidDocument::Image(image.clone()));
            }
        }
        Ok(document)
    }
}

/// Returns the `ETag` of a document text, with its quotes.
#[must_use]
pub fn etag(text: &[u8]) -> String {
    format!("\"{}\"", Digest::sha256(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nginx() -> RepositoryName {
        "registry:5000/nginx".parse().unwrap()
    }

    fn tag(text: &str) -> TagOrDigest {
        TagOrDigest::Tag(text.parse().unwrap())
    }

    #[test]
    fn longer_retention_prevails_in_any_order() {
        let rising = [
            ImageRetention::unused(Some(1)),
            ImageRetention::unused(Some(2)),
            ImageRetention::unused(None),
            ImageRetention::retained(),
            ImageRetention::in_use(),
        ];
        for (at, less) in rising.iter().enumerate() {
            for more in &rising[at..] {
                for pair in [[less, more], [more, less]] {
                    let mut document = RetentionDocument::default();
                    for retention in pair {
                        document.insert(&nginx(), &tag("1"), *retention);
                    }
                    assert_eq!(document.get("registry__5000/nginx", "1"), Some(*more), "{less:?} {more:?}");
                    assert_eq!(document.len(), 1);
                }
            }
        }
    }

    #[test]
    fn document_round_trips_and_its_text_is_independent_of_insertion_order() {
        let digest = TagOrDigest::Digest(Digest::sha256(b"x"));
        let images = [
            (tag("b"), ImageRetention::in_use()),
            (digest, ImageRetention::unused(Some(7))),
            (tag("a"), ImageRetention::retained()),
        ];
        let build = |images: &mut dyn Iterator<Item = &(TagOrDigest, ImageRetention)>| {
            let mut document = RetentionDocument::default();
            for (at, retention) in images {
                document.insert(&nginx(), at, *retention);
            }
            document
        };
        let document = build(&mut images.iter());
        assert_eq!(document.to_json(), build(&mut images.iter().rev()).to_json());
        assert_eq!(RetentionDocument::parse(&document.to_json()).unwrap(), document);
    }

    #[test]
    fn unknown_state_is_in_use_and_unknown_fields_are_ignored() {
        let text = br#"{"version":9,"repositories":{"app":{"v1":{"state":"frozen","until":1}}}}"#;
        let document = RetentionDocument::parse(text).unwrap();
        assert_eq!(document.get("app", "v1"), Some(ImageRetention::in_use()));
    }

    #[test]
    fn invalid_documents_are_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"repositories":[]}"#,
            r#"{"repositories":{"App":{}}}"#,
            r#"{"repositories":{"../app":{}}}"#,
            r#"{"repositories":{"app":{".x":{"state":"inUse"}}}}"#,
            r#"{"repositories":{"app":{"sha256:abc":{"state":"inUse"}}}}"#,
            r#"{"repositories":{"app":{"v1":{}}}}"#,
            r#"{"repositories":{"app":{"v1":{"state":1}}}}"#,
            r#"{"repositories":{"app":{"v1":{"state":"unused","expiresAt":"soon"}}}}"#,
            r#"{"repositories":{"app":{"v1":{"state":"unused","expiresAt":-1}}}}"#,
        ] {
            assert!(RetentionDocument::parse(text.as_bytes()).is_err(), "{text}");
        }
        let large = vec![b' '; MAX_DOCUMENT_BYTES + 1];
        assert!(matches!(RetentionDocument::parse(&large), Err(InvalidDocument::TooLarge(_))));
    }
}
