//! Parser of image references.
//!
//! Invariant: an [`ImageReference`] is valid, and its parts are normalized. They are borrowed from the text; parsing
//! allocates nothing.

use std::borrow::Cow;

use super::{
    error::ReferenceError,
    grammar,
    name::RepositoryName,
    normalized::{Name, Named},
};
use crate::digest::Digest;

/// Reference to an image: a repository with a tag, a digest, both or neither.
///
/// Two references are equal if their normalized forms are: `nginx` equals `docker.io/library/nginx:latest`.
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
    /// The registry as written, if any.
    pub(super) host: Option<&'a str>,
    pub(super) name: Name<'a>,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> ImageReference<'a> {
    /// Parses a reference as users write it.
    ///
    /// # Errors
    /// Returns an error if `text` does not follow the grammar; see [`ReferenceError`].
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

    /// The length of the tag and the digest in bytes, with their signs.
    pub(super) fn suffix_len(&self) -> usize {
        [self.tag, self.digest].into_iter().flatten().map(|part| 1 + part.len()).sum()
    }

    /// The registry's host, with its port if any: `docker.io`, `registry:5000`, `[::1]:5000`.
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

    /// The effective tag: `latest` if there is neither a tag nor a digest.
    #[must_use]
    pub fn tag_or_default(&self) -> Option<&'a str> {
        self.tag.or(if self.digest.is_none() { Some("latest") } else { None })
    }

    /// The digest as written.
    #[must_use]
    pub fn digest(&self) -> Option<&'a str> {
        self.digest
    }

    /// The digest as an owned value.
    #[must_use]
    pub fn to_digest(&self) -> Option<Digest> {
        // The grammar of references is stricter: every digest that it accepts is a valid `Digest`.
        self.digest.and_then(|digest| digest.parse().ok())
    }

    /// The repository as an owned value.
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
