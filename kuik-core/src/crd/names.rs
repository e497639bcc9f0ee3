//! The labels, annotations and finalizers that kuik reads and writes.

use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

/// The API group of the custom resources.
pub const GROUP: &str = "kuik.enix.io";

/// The version of the custom resources.
pub const VERSION: &str = "v1alpha1";

/// Keeps a CachedImage until its tag is gone from the cache.
pub const CACHED_IMAGE_FINALIZER: &str = "cachedimage.kuik.enix.io/finalizer";

/// Keeps a Repository until its CachedImages are gone.
pub const REPOSITORY_FINALIZER: &str = "repository.kuik.enix.io/finalizer";

/// Set to `"true"` on a CachedImage, asks for one refresh.
pub const FORCE_UPDATE_ANNOTATION: &str = "cachedimage.kuik.enix.io/forceUpdate";

/// Names the Repository of a CachedImage.
pub const REPOSITORY_LABEL: &str = "kuik.enix.io/repository";

/// `"true"` on every pod that the webhook has seen.
pub const MANAGED_LABEL: &str = "kuik.enix.io/managed";

/// On a pod, whether an update of it is rewritten too: `"true"` or `"false"`.
pub const REWRITE_IMAGES_ANNOTATION: &str = "kuik.enix.io/rewrite-images";

/// How long the name of an annotation may be: 63 bytes, without its prefix.
const MAX_ANNOTATION_BYTES: usize = 63;

/// The annotation that keeps the image of a container as it was written: `original-image-<container>`.
///
/// ```
/// # use kuik_core::crd::original_image_annotation;
/// assert_eq!(original_image_annotation("web"), "original-image-web");
/// ```
#[must_use]
pub fn original_image_annotation(container: &str) -> String {
    annotation("original-image-", container)
}

/// The annotation that keeps the image of an init container as it was written: `original-init-image-<container>`.
#[must_use]
pub fn original_init_image_annotation(container: &str) -> String {
    annotation("original-init-image-", container)
}

/// A container's name that would make the annotation's too long is replaced by its SHA-1 in hex, as it always was.
fn annotation(prefix: &str, container: &str) -> String {
    let mut name = prefix.to_owned();
    if prefix.len() + container.len() <= MAX_ANNOTATION_BYTES {
        name.push_str(container);
        return name;
    }
    for byte in Sha1::digest(container.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_container_name_is_hashed() {
        let (fits, long) = ("a".repeat(48), "a".repeat(49));
        assert_eq!(original_image_annotation(&fits), format!("original-image-{fits}"));
        assert_eq!(original_image_annotation(&long).len(), "original-image-".len() + 40);
        assert_eq!(original_init_image_annotation(&"a".repeat(43)).len(), 63);
        assert_eq!(original_init_image_annotation(&"a".repeat(44)).len(), "original-init-image-".len() + 40);
    }

    #[test]
    fn the_hash_is_sha1() {
        let name = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk";
        // printf %s … | sha1sum
        let expected = "original-image-fc8a5ab77259625085ead3ec96515b3b8d933fad";
        assert_eq!(original_image_annotation(name), expected);
    }
}
