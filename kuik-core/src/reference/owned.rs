//! Owned references, for collections and for values that outlive the text.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use super::{
    error::ReferenceError,
    name::{RepositoryName, Tag},
    parse::ImageReference,
};
use crate::digest::Digest;

/// Owned form of an [`ImageReference`]. Cheap to clone; equal, ordered and hashed by the normalized reference.
///
/// ```
/// use kuik_core::reference::OwnedImageReference;
///
/// let image: OwnedImageReference = "nginx".parse()?;
/// assert_eq!(image, "docker.io/library/nginx:latest".parse()?);
/// assert_eq!((image.as_written(), image.normalized()), ("nginx", "docker.io/library/nginx:latest"));
/// # Ok::<(), kuik_core::reference::ReferenceError>(())
/// ```
#[derive(Debug, Clone)]
pub struct OwnedImageReference {
    written: Arc<str>,
    normalized: Arc<str>,
    repository: RepositoryName,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl OwnedImageReference {
    /// The reference as it was written.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// The normalized reference, as printed.
    #[must_use]
    pub fn normalized(&self) -> &str {
        &self.normalized
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// The tag as written: `nginx` has none.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl From<&ImageReference<'_>> for OwnedImageReference {
    fn from(image: &ImageReference<'_>) -> Self {
        Self {
            written: image.as_written().into(),
            normalized: image.normalized().into(),
            repository: image.repository(),
            // The grammar of references is the grammar of tags.
            tag: image.tag().and_then(|tag| tag.parse().ok()),
            digest: image.to_digest(),
        }
    }
}

impl FromStr for OwnedImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::from(&ImageReference::parse(text)?))
    }
}

impl fmt::Display for OwnedImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.normalized)
    }
}

impl PartialEq for OwnedImageReference {
    fn eq(&self, other: &Self) -> bool {
        self.normalized == other.normalized
    }
}

impl Eq for OwnedImageReference {}

impl Hash for OwnedImageReference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.normalized.hash(state);
    }
}

impl PartialOrd for OwnedImageReference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OwnedImageReference {
    fn cmp(&self, other: &Self) -> Ordering {
        self.normalized.cmp(&other.normalized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_borrowed_reference() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in ["nginx", "registry:5000/app:V1", &format!("quay.io/a/b:1@{digest}"), "[::1]:5000/a"] {
            let borrowed = ImageReference::parse(text).unwrap();
            let owned = OwnedImageReference::from(&borrowed);
            assert_eq!(owned.as_written(), text);
            assert_eq!(owned.to_string(), borrowed.to_string());
            assert_eq!(*owned.repository(), borrowed.repository());
            assert_eq!(owned.tag().map(Tag::as_str), borrowed.tag());
            assert_eq!(owned.digest().map(Digest::as_str), borrowed.digest());
            assert_eq!(owned, owned.to_string().parse().unwrap());
        }
        assert!("%".parse::<OwnedImageReference>().is_err());
    }
}
