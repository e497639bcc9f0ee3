//! The validated parts of a reference that travel alone: a repository's full name, and a tag.

use std::{fmt, str::FromStr, sync::Arc};

/// The full name of a repository: the registry that is its origin, and the path there.
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

/// A text that is not a valid repository name or tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}")]
pub struct InvalidName {
    text: String,
    what: &'static str,
}

impl RepositoryName {
    /// A repository `path` in `registry`; both as they are normalised (`docker.io`, `library/nginx`).
    ///
    /// # Errors
    /// Where either does not follow the grammar.
    pub fn new(registry: &str, path: &str) -> Result<Self, InvalidName> {
        if registry.is_empty() || path.is_empty() {
            return Err(InvalidName { text: format!("{registry}/{path}"), what: "repository name" });
        }
        Ok(Self { registry: registry.into(), path: path.into() })
    }

    /// The registry's host, with its port where it has one: `docker.io`, `registry:5000`, `[::1]:5000`.
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
        let mut bytes = text.bytes();
        let head = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if head && text.len() <= 128 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName { text: text.to_owned(), what: "tag" })
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
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
