//! From a text to an [`ImageReference`].
//!
//! Invariant: an `ImageReference` is valid, and its parts are the normalised ones. They are borrowed from the text;
//! parsing allocates nothing.

use std::borrow::Cow;

use super::{
    error::{ReferenceError, ReferenceErrorKind},
    grammar::{self, MAX_PATH_BYTES},
    name::RepositoryName,
};
use crate::content::Digest;

/// The registry of images that name none.
pub(super) const DOCKER_HUB: &str = "docker.io";
/// Another name of it, from its early days.
const DOCKER_HUB_INDEX: &str = "index.docker.io";
/// Where its images are that have a name of one part.
pub(super) const OFFICIAL: &str = "library/";

/// A reference to an image: a repository, and in it a tag, a digest, both or neither.
///
/// Two references are equal where they mean the same: `nginx` equals `docker.io/library/nginx:latest`.
///
/// ```
/// use kuik_core::reference::ImageReference;
///
/// let image = ImageReference::parse("nginx")?;
/// assert_eq!(image.registry(), "docker.io");
/// assert_eq!(image.path(), "library/nginx");
/// assert_eq!(image.tag(), None);
/// assert_eq!(image.to_string(), "docker.io/library/nginx:latest");
/// assert_eq!(image, ImageReference::parse("index.docker.io/nginx:latest")?);
/// # Ok::<(), kuik_core::reference::ReferenceError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ImageReference<'a> {
    text: &'a str,
    /// The registry as written, if it is.
    pub(super) host: Option<&'a str>,
    pub(super) name: Name<'a>,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

/// A repository's name with the defaults of Docker Hub applied: one value for one repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name<'a> {
    pub(super) registry: &'a str,
    /// Whether `library/` stands before the path.
    pub(super) official: bool,
    pub(super) path: &'a str,
}

impl<'a> ImageReference<'a> {
    /// Reads a reference as people write it.
    ///
    /// # Errors
    /// Where `text` does not follow the grammar; see [`ReferenceError`].
    pub fn parse(text: &'a str) -> Result<Self, ReferenceError> {
        Self::parse_parts(text).map_err(|error| error.seen_in(text))
    }

    fn parse_parts(text: &'a str) -> Result<Self, ReferenceError> {
        let bytes = text.as_bytes();
        let Named { host, name, mut end } = Named::parse(text)?;
        let (mut tag, mut digest) = (None, None);
        if let Some(start) = grammar::behind(b':', bytes, end) {
            end = grammar::tag(bytes, start)?;
            tag = text.get(start..end);
        }
        if let Some(start) = grammar::behind(b'@', bytes, end) {
            end = grammar::digest(bytes, start)?;
            digest = text.get(start..end);
        }
        Ok(Self { text, host, name, tag, digest })
    }

    /// The reference as it was written.
    #[must_use]
    pub fn as_written(&self) -> &'a str {
        self.text
    }

    /// The reference as written, without its registry.
    pub(super) fn behind_host(&self) -> &'a str {
        self.host.and_then(|host| self.text.get(host.len() + 1..)).unwrap_or(self.text)
    }

    /// How many bytes the tag and the digest have, with their signs.
    pub(super) fn suffix_len(&self) -> usize {
        [self.tag, self.digest].into_iter().flatten().map(|part| 1 + part.len()).sum()
    }

    /// The registry's host, with its port where it has one: `docker.io`, `registry:5000`, `[::1]:5000`.
    #[must_use]
    pub fn registry(&self) -> &'a str {
        self.name.registry
    }

    /// The path inside the registry, `library/` included.
    #[must_use]
    pub fn path(&self) -> Cow<'a, str> {
        self.name.full_path()
    }

    /// The tag as written: `nginx` has none.
    #[must_use]
    pub fn tag(&self) -> Option<&'a str> {
        self.tag
    }

    /// The tag that is meant: `latest` where there is neither a tag nor a digest.
    #[must_use]
    pub fn tag_or_default(&self) -> Option<&'a str> {
        self.tag.or(if self.digest.is_none() { Some("latest") } else { None })
    }

    /// The digest as written.
    #[must_use]
    pub fn digest(&self) -> Option<&'a str> {
        self.digest
    }

    /// The digest as a value of its own.
    #[must_use]
    pub fn to_digest(&self) -> Option<Digest> {
        // The grammar of references is the stricter one: every digest that it accepts is a `Digest`.
        self.digest.and_then(|digest| digest.parse().ok())
    }

    /// The repository, as a value of its own.
    #[must_use]
    pub fn repository(&self) -> RepositoryName {
        RepositoryName::from(self.name)
    }
}

impl<'a> TryFrom<&'a str> for ImageReference<'a> {
    type Error = ReferenceError;

    fn try_from(text: &'a str) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}

/// The beginning of a reference: `[ registry "/" ] path`.
pub(super) struct Named<'a> {
    /// The registry as written, if it is.
    host: Option<&'a str>,
    pub(super) name: Name<'a>,
    /// Where the path ends.
    pub(super) end: usize,
}

impl<'a> Named<'a> {
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
    /// `path` in `registry`, both by the grammar.
    pub(super) fn new(registry: &'a str, path: &'a str) -> Self {
        if registry != DOCKER_HUB && registry != DOCKER_HUB_INDEX {
            return Self { registry, official: false, path };
        }
        let in_library = path.strip_prefix(OFFICIAL).unwrap_or(path);
        let official = !in_library.contains('/');
        Self { registry: DOCKER_HUB, official, path: if official { in_library } else { path } }
    }

    /// How many bytes the path has beyond the limit.
    pub(super) fn excess(&self) -> usize {
        let library = if self.official { OFFICIAL.len() } else { 0 };
        (library + self.path.len()).saturating_sub(MAX_PATH_BYTES)
    }

    pub(super) fn full_path(&self) -> Cow<'a, str> {
        if self.official { Cow::Owned([OFFICIAL, self.path].concat()) } else { Cow::Borrowed(self.path) }
    }
}
