//! Normalized repository names, borrowed from the text of a reference.
//!
//! Invariant: a [`Name`] has Docker Hub's defaults applied, so that one repository has one value.

use std::borrow::Cow;

use super::{
    error::{ReferenceError, ReferenceErrorKind},
    grammar::{self, MAX_PATH_BYTES},
};

/// The default registry.
pub(super) const DOCKER_HUB: &str = "docker.io";
/// Legacy name of Docker Hub.
const DOCKER_HUB_INDEX: &str = "index.docker.io";
/// Path prefix of Docker Hub's official images, whose names have one part.
pub(super) const OFFICIAL: &str = "library/";

/// Repository name with Docker Hub's defaults applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name<'a> {
    pub(super) registry: &'a str,
    /// Whether the path has the prefix `library/`.
    pub(super) official: bool,
    pub(super) path: &'a str,
}

/// The beginning of a reference: `[ registry "/" ] path`.
pub(super) struct Named<'a> {
    /// The registry as written, if any.
    pub(super) host: Option<&'a str>,
    pub(super) name: Name<'a>,
    /// End offset of the path.
    pub(super) end: usize,
}

impl<'a> Named<'a> {
    /// Parses the registry and the path of a reference.
    pub(super) fn parse(text: &'a str) -> Result<Self, ReferenceError> {
        let bytes = text.as_bytes();
        if grammar::is_identifier(bytes) {
            return Err(ReferenceError::new(ReferenceErrorKind::Identifier, 0));
        }
        let (mut host, mut start) = (None, 0);
        if let Some(slash) = grammar::registry_ahead(bytes) {
            grammar::registry(bytes, slash)?;
            (host, start) = (text.get(..slash), slash + 1);
        }
        let end = grammar::path(bytes, start)?;
        let name = Name::new(host.unwrap_or(DOCKER_HUB), text.get(start..end).unwrap_or_default());
        match name.excess() {
            0 => Ok(Self { host, name, end }),
            excess => Err(ReferenceError::new(ReferenceErrorKind::PathTooLong, end - excess)),
        }
    }
}

impl<'a> Name<'a> {
    /// Normalizes `path` in `registry`, both valid by the grammar.
    pub(super) fn new(registry: &'a str, path: &'a str) -> Self {
        if registry != DOCKER_HUB && registry != DOCKER_HUB_INDEX {
            return Self { registry, official: false, path };
        }
        let in_library = path.strip_prefix(OFFICIAL).unwrap_or(path);
        let official = !in_library.contains('/');
        Self { registry: DOCKER_HUB, official, path: if official { in_library } else { path } }
    }

    /// Number of bytes by which the path exceeds the limit.
    pub(super) fn excess(&self) -> usize {
        let library = if self.official { OFFICIAL.len() } else { 0 };
        (library + self.path.len()).saturating_sub(MAX_PATH_BYTES)
    }

    /// The path with `library/` if it is an official image.
    pub(super) fn full_path(&self) -> Cow<'a, str> {
        if self.official { Cow::Owned([OFFICIAL, self.path].concat()) } else { Cow::Borrowed(self.path) }
    }
}
