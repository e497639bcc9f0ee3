//! Which image is copied, and under which tag the cache keeps it.

use std::fmt;

use crate::{
    content::{Digest, TagOrDigest},
    reference::{ImageReference, RepositoryName, Tag},
};

/// How much of a digest is in the tag of an image that has none: all of SHA-256.
const DIGITS: usize = 64;

/// An image at its source: a repository, and a tag or a digest in it.
///
/// Every image has one tag in the cache, so that it can be kept and let go of by itself. One that is asked for by its
/// digest is kept under a tag that is made of that: without any tag, a registry that removes what nobody has tagged
/// would remove it, and to remove it by its digest would take every other tag of that digest with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceImage {
    repository: RepositoryName,
    at: TagOrDigest,
    kept_as: Tag,
}

impl SourceImage {
    /// The image that a reference means: by digest where it has one, whatever its tag.
    ///
    /// # Errors
    /// Where its tag or digest is none that a registry has.
    pub fn new(reference: &ImageReference<'_>) -> Result<Self, crate::reference::InvalidName> {
        let repository = reference.repository();
        if let Some(digest) = reference.to_digest() {
            let digits = digest.encoded().get(..DIGITS).unwrap_or(digest.encoded());
            let kept_as = format!("kuik-{}-{digits}", digest.algorithm_name()).parse()?;
            return Ok(Self { repository, at: TagOrDigest::Digest(digest), kept_as });
        }
        let tag: Tag = reference.tag_or_default().unwrap_or("latest").parse()?;
        Ok(Self { repository, at: TagOrDigest::Tag(tag.clone()), kept_as: tag })
    }

    /// Where it is.
    #[must_use]
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// What it is asked for by.
    #[must_use]
    pub fn at(&self) -> &TagOrDigest {
        &self.at
    }

    /// The digest that it is asked for by, where it is.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match &self.at {
            TagOrDigest::Digest(digest) => Some(digest),
            TagOrDigest::Tag(_) => None,
        }
    }

    /// The tag that it has in the cache.
    #[must_use]
    pub fn kept_as(&self) -> &Tag {
        &self.kept_as
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
    fn every_image_has_a_tag_in_the_cache() {
        let digest = "a".repeat(64);
        for (text, shown, kept_as) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned(), "latest".to_owned()),
            ("r.example:5000/app:V1", "r.example:5000/app:V1".to_owned(), "V1".to_owned()),
            (
                &format!("nginx:1.25@sha256:{digest}"),
                format!("docker.io/library/nginx@sha256:{digest}"),
                format!("kuik-sha256-{digest}"),
            ),
        ] {
            let image = SourceImage::new(&ImageReference::parse(text).unwrap()).unwrap();
            assert_eq!((image.to_string(), image.kept_as().to_string()), (shown, kept_as));
        }
    }
}
