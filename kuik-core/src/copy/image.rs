//! Source image, and its tag in the cache.

use std::fmt;

use crate::{
    content::{Digest, TagOrDigest},
    reference::{ImageReference, RepositoryName, Tag},
};

/// Number of digest characters in the tag of an image without a tag: all of SHA-256.
const DIGITS: usize = 64;

/// An image at its source: a repository, and a tag or a digest.
///
/// Every image has one tag in the cache, so that it can be retained and removed independently. An image referenced by
/// digest gets a tag derived from the digest: untagged, it would be garbage collected by the registry, and removing it
/// by digest would remove all other tags of that digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceImage {
    repository: RepositoryName,
    at: TagOrDigest,
    cache_tag: Tag,
    /// The repository to copy it to, if not its encoded name.
    target: Option<RepositoryName>,
}

impl SourceImage {
    /// Returns the image of a reference: by digest if it has one, else by tag.
    ///
    /// # Errors
    /// Returns an error if its tag or digest is not valid in a registry.
    pub fn new(reference: &ImageReference<'_>) -> Result<Self, crate::reference::InvalidName> {
        let repository = reference.repository();
        if let Some(digest) = reference.to_digest() {
            let digits = digest.encoded().get(..DIGITS).unwrap_or(digest.encoded());
            let cache_tag = format!("kuik-{}-{digits}", digest.algorithm_name()).parse()?;
            return Ok(Self { repository, at: TagOrDigest::Digest(digest), cache_tag, target: None });
        }
        let tag: Tag = reference.tag_or_default().unwrap_or("latest").parse()?;
        Ok(Self { repository, at: TagOrDigest::Tag(tag.clone()), cache_tag: tag, target: None })
    }

    /// Copies the image to `tag` of `repository` in the cache, instead of kuik's own names there: its encoded repository
    /// and [`cache_tag`](Self::cache_tag). Only for a [`PushCopier`](super::PushCopier): a pull-through cache determines
    /// the names itself.
    ///
    /// ```
    /// use kuik_core::copy::SourceImage;
    /// use kuik_core::reference::{ImageReference, RepositoryName};
    ///
    /// let image = SourceImage::new(&ImageReference::parse("quay.io/prometheus/prometheus:v3.0.0")?)?;
    /// let image = image.copied_to(RepositoryName::local("team/prometheus")?, "approved".parse()?);
    /// assert_eq!(image.target().unwrap().path(), "team/prometheus");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn copied_to(self, repository: RepositoryName, tag: Tag) -> Self {
        Self { target: Some(repository), cache_tag: tag, ..self }
    }

    /// Returns the repository that it is copied to, if [set](Self::copied_to).
    #[must_use]
    pub fn target(&self) -> Option<&RepositoryName> {
        self.target.as_ref()
    }

    /// Returns its repository.
    #[must_use]
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// Returns its tag or digest.
    #[must_use]
    pub fn at(&self) -> &TagOrDigest {
        &self.at
    }

    /// Returns its digest, if it is referenced by digest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match &self.at {
            TagOrDigest::Digest(digest) => Some(digest),
            TagOrDigest::Tag(_) => None,
        }
    }

    /// Returns its tag in the cache.
    #[must_use]
    pub fn cache_tag(&self) -> &Tag {
        &self.cache_tag
    }
}

impl fmt::Display for SourceImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.digest().is_some() { '@' } else { ':' };
        write!(f, "{}{separator}{}", self.repository, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_a_cache_tag() {
        let digest = "a".repeat(64);
        for (text, shown, cache_tag) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned(), "latest".to_owned()),
            ("r.example:5000/app:V1", "r.example:5000/app:V1".to_owned(), "V1".to_owned()),
            (
                &format!("nginx:1.25@sha256:{digest}"),
                format!("docker.io/library/nginx@sha256:{digest}"),
                format!("kuik-sha256-{digest}"),
            ),
        ] {
            let image = SourceImage::new(&ImageReference::parse(text).unwrap()).unwrap();
            assert_eq!((image.to_string(), image.cache_tag().to_string()), (shown, cache_tag));
        }
    }
}
