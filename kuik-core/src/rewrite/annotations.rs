//! Label and annotations of a pod that kuik has processed.

use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

/// `"true"` on every pod that the webhook manages.
pub const MANAGED_LABEL: &str = "kuik.enix.io/managed";

/// On a pod, whether the webhook rewrites updates of it too: `"true"` or `"false"`.
pub const REWRITE_IMAGES_ANNOTATION: &str = "kuik.enix.io/rewrite-images";

/// Maximum length of an annotation name without its prefix, in bytes.
const MAX_ANNOTATION_BYTES: usize = 63;

/// Returns the annotation for the original image of a container: `original-image-<container>`.
///
/// ```
/// # use kuik_core::rewrite::original_image_annotation;
/// assert_eq!(original_image_annotation("web"), "original-image-web");
/// ```
#[must_use]
pub fn original_image_annotation(container: &str) -> String {
    annotation("original-image-", container)
}

/// Returns the annotation for the original image of an init container: `original-init-image-<container>`.
#[must_use]
pub fn original_init_image_annotation(container: &str) -> String {
    annotation("original-init-image-", container)
}

/// Replaces a container name that would exceed the limit with its SHA-1 in hex, as kuik 1.x does.
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
    fn long_container_name_is_hashed() {
        let (fits, long) = ("a".repeat(48), "a".repeat(49));
        assert_eq!(original_image_annotation(&fits), format!("original-image-{fits}"));
        assert_eq!(original_image_annotation(&long).len(), "original-image-".len() + 40);
        assert_eq!(original_init_image_annotation(&"a".repeat(43)).len(), 63);
        assert_eq!(original_init_image_annotation(&"a".repeat(44)).len(), "original-init-image-".len() + 40);
    }

    #[test]
    fn container_name_hash_is_sha1() {
        let name = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk";
        // printf %s … | sha1sum
        let expected = "original-image-fc8a5ab77259625085ead3ec96515b3b8d933fad";
        assert_eq!(original_image_annotation(name), expected);
    }
}
