//! What somebody has said about an image: that it is to stay, or until when it is needed.
//!
//! A mark is on a tag or on a digest of a repository. It is kept as a note beside the content, may come before the
//! image and outlives it, and is removed by whoever set it.

use std::time::SystemTime;

use bytes::Bytes;
use kuik_core::{
    content::{InvalidNoteName, ManagedStore, NoteName, SourceError, SourceErrorKind, TagOrDigest},
    reference::RepositoryName,
};
use serde::{Deserialize, Serialize};

use super::choose::Standing;

/// What the names of notes that are marks begin with.
const PREFIX: &str = "mark.";

/// What is said about a tag, or about a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Mark {
    /// It is never evicted, whatever else is said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// From then on it is evicted before all that is not expired.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339")]
    pub expires_at: Option<SystemTime>,
}

impl Mark {
    /// The mark as it is kept and sent.
    #[must_use]
    pub fn to_json(self) -> Bytes {
        serde_json::to_vec(&self).unwrap_or_default().into()
    }
}

/// Times as they are written: `2030-01-01T00:00:00Z`.
mod rfc3339 {
    use std::time::SystemTime;

    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer, de, ser};

    pub(super) fn serialize<S: Serializer>(
        at: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(at) = at else { return serializer.serialize_none() };
        let at = Timestamp::try_from(*at).map_err(ser::Error::custom)?;
        serializer.collect_str(&at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let at: Timestamp = text.parse().map_err(de::Error::custom)?;
        SystemTime::try_from(at).map(Some).map_err(de::Error::custom)
    }
}

/// How an image stands that has these marks on its names.
///
/// A pin on any name holds. An image has expired where some name's time is over and no name's is still to come; a name
/// without a mark says nothing.
pub(super) fn standing(marks: impl IntoIterator<Item = Mark>, now: SystemTime) -> Standing {
    let (mut expired, mut needed) = (false, false);
    for mark in marks {
        if mark.pinned {
            return Standing::Pinned;
        }
        match mark.expires_at {
            Some(at) if at <= now => expired = true,
            Some(_) => needed = true,
            None => {}
        }
    }
    if expired && !needed { Standing::Expired } else { Standing::Usual }
}

/// The marks of a store.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a>(pub &'a dyn ManagedStore);

impl Marks<'_> {
    /// The mark on `at`.
    ///
    /// # Errors
    /// Where the store cannot be read. A mark that is damaged is `InvalidContent`: nobody knows what it said.
    pub async fn get(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
    ) -> Result<Option<Mark>, SourceError> {
        let name = note_name(at).map_err(|error| too_long(at, error))?;
        self.read(repository, &name).await
    }

    /// Sets the mark on `at`, or removes it.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub async fn set(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        mark: Option<Mark>,
    ) -> Result<(), SourceError> {
        let name = note_name(at).map_err(|error| too_long(at, error))?;
        self.0.put_note(repository, &name, mark.map(Mark::to_json)).await
    }

    /// The mark of this name, as it counts: one that cannot be read pins, because nobody knows what it said.
    pub(super) async fn counted(
        &self,
        repository: &RepositoryName,
        name: &NoteName,
    ) -> Result<Option<Mark>, SourceError> {
        match self.read(repository, name).await {
            Err(error) if error.kind() == SourceErrorKind::InvalidContent => {
                tracing::warn!(error = error.chain(), "a mark cannot be read: what it is on stays");
                Ok(Some(Mark { pinned: true, ..Mark::default() }))
            }
            read => read,
        }
    }

    async fn read(&self, repository: &RepositoryName, name: &NoteName) -> Result<Option<Mark>, SourceError> {
        let Some(text) = self.0.note(repository, name).await? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            let attempted = format!("read the mark {name} of {repository}");
            SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, error)
        })
    }
}

/// What the note `name` marks, where it is a mark: the text of a tag or digest.
pub(super) fn marked(name: &NoteName) -> Option<&str> {
    name.as_str().strip_prefix(PREFIX)
}

pub(super) fn note_name(at: &TagOrDigest) -> Result<NoteName, InvalidNoteName> {
    match at {
        TagOrDigest::Tag(tag) => format!("{PREFIX}{tag}").parse(),
        TagOrDigest::Digest(digest) => format!("{PREFIX}{digest}").parse(),
    }
}

fn too_long(at: &TagOrDigest, error: InvalidNoteName) -> SourceError {
    SourceError::caused_by(SourceErrorKind::Unsupported, format!("find the mark on {at}"), error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn mark(pinned: bool, expires: Option<u64>) -> Mark {
        Mark { pinned, expires_at: expires.map(at) }
    }

    #[test]
    fn what_marks_mean_together() {
        let now = at(100);
        for (marks, expected) in [
            (vec![], Standing::Usual),
            (vec![mark(false, None)], Standing::Usual),
            (vec![mark(false, Some(101))], Standing::Usual),
            (vec![mark(false, Some(100))], Standing::Expired),
            (vec![mark(false, Some(1)), mark(false, None)], Standing::Expired),
            (vec![mark(false, Some(1)), mark(false, Some(101))], Standing::Usual),
            (vec![mark(false, Some(1)), mark(true, None)], Standing::Pinned),
            (vec![mark(true, Some(1))], Standing::Pinned),
        ] {
            assert_eq!(standing(marks.clone(), now), expected, "{marks:?}");
        }
    }

    #[test]
    fn marks_are_written_as_they_are_read() {
        for (text, expected) in [
            ("{}", Mark::default()),
            (r#"{"pinned":true}"#, mark(true, None)),
            (r#"{"expiresAt":"1970-01-01T00:01:40Z"}"#, mark(false, Some(100))),
        ] {
            assert_eq!(serde_json::from_str::<Mark>(text).unwrap(), expected);
            assert_eq!(expected.to_json(), text);
        }
        for text in ["", "1", r#"{"pin":true}"#, r#"{"expiresAt":"soon"}"#, r#"{"expiresAt":1}"#] {
            assert!(serde_json::from_str::<Mark>(text).is_err(), "{text}");
        }
    }
}
