//! Repository names and tags: owned, validated parts of a reference.
//!
//! Invariant: both follow the grammar, and a [`RepositoryName`] is normalized, so that one repository has one name,
//! and its printed form parses to an equal name.

use std::{fmt, str::FromStr, sync::Arc};

use super::{
    error::{ReferenceError, ReferenceErrorKind},
    grammar::{self, MAX_PATH_BYTES},
    normalized::{Name, Named},
};

/// Full name of a repository: its origin registry and the path there.
///
/// Printed as `docker.io/library/nginx` or `registry:5000/app`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName {
    registry: Arc<str>,
    path: Arc<str>,
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// A text is not a valid repository name or tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}")]
pub struct InvalidName {
    text: String,
    what: &'static str,
    #[source]
    reason: ReferenceError,
}

impl RepositoryName {
    /// Creates the name of `path` in `registry`: `docker.io` and `library/nginx`. Docker Hub's defaults are applied.
    ///
    /// # Errors
    /// Returns an error if either does not follow the grammar.
    pub fn new(registry: &str, path: &str) -> Result<Self, InvalidName> {
        grammar::registry_alone(registry.as_bytes())
            .map_err(|error| InvalidName::new(registry, "registry", error))?;
        grammar::path_alone(path.as_bytes())
            .map_err(|error| InvalidName::new(path, "path of a repository", error))?;
        let name = Name::new(registry, path);
        match name.excess() {
            0 => Ok(Self::from(name)),
            excess => {
                let error = ReferenceError::new(ReferenceErrorKind::PathTooLong, path.len() - excess);
                Err(InvalidName::new(path, "path of a repository", error))
            }
        }
    }

    /// Creates the name of a local repository of the serving registry, under the `path` that its clients use.
    ///
    /// It has no origin registry: [`RepositoryName::registry`] is empty, and it is printed and stored as its path.
    ///
    /// # Errors
    /// Returns an error if the path does not follow the grammar, or is longer than [`MAX_PATH_BYTES`].
    pub fn local(path: &str) -> Result<Self, InvalidName> {
        grammar::path_alone(path.as_bytes())
            .map_err(|error| InvalidName::new(path, "path of a repository", error))?;
        if path.len() > MAX_PATH_BYTES {
            let error = ReferenceError::new(ReferenceErrorKind::PathTooLong, MAX_PATH_BYTES);
            return Err(InvalidName::new(path, "path of a repository", error));
        }
        Ok(Self { registry: "".into(), path: path.into() })
    }

    /// The registry's host, with its port if any: `docker.io`, `registry:5000`, `[::1]:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path inside the registry: `library/nginx`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl From<Name<'_>> for RepositoryName {
    fn from(name: Name<'_>) -> Self {
        Self { registry: name.registry.into(), path: name.full_path().into() }
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Named::parse(text) {
            Ok(named) if named.end == text.len() => Ok(Self::from(named.name)),
            Ok(named) => Err(ReferenceError::new(ReferenceErrorKind::NotANameAlone, named.end)),
            Err(error) => Err(error),
        }
        .map_err(|error| InvalidName::new(text, "name of a repository", error))
    }
}

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        grammar::tag_alone(text.as_bytes()).map_err(|error| InvalidName::new(text, "tag", error))?;
        Ok(Self(text.into()))
    }
}

impl InvalidName {
    pub(super) fn new(text: &str, what: &'static str, reason: ReferenceError) -> Self {
        Self { text: text.to_owned(), what, reason: reason.seen_in(text) }
    }

    /// The parse error, with its offset.
    #[must_use]
    pub fn reason(&self) -> ReferenceError {
        self.reason
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.registry.is_empty() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.registry, self.path)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_name_prints_its_path_and_rejects_invalid_paths() {
        let name = RepositoryName::local("team/app").unwrap();
        assert_eq!((name.registry(), name.path(), name.to_string()), ("", "team/app", "team/app".to_owned()));
        assert!(RepositoryName::local(&"a".repeat(MAX_PATH_BYTES)).is_ok());
        let error = RepositoryName::local(&"a".repeat(MAX_PATH_BYTES + 1)).unwrap_err();
        assert_eq!(error.reason().kind(), ReferenceErrorKind::PathTooLong);
        for text in ["", "..", "a/../b", "_uploads", "a//b", "A"] {
            assert!(RepositoryName::local(text).is_err(), "{text}");
        }
    }
}
