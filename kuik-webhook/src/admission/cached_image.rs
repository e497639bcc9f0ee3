//! The JSON Patch for a CachedImage: its repository label, or a denial if it has no valid image.
//!
//! Only a new or changed image is validated. An object that was invalid before can still be updated: otherwise its finalizer
//! could not be removed.

use kuik_core::{
    crd::{REPOSITORY_LABEL, repository_label},
    reference::ImageReference,
};
use serde_json::Value;

use super::patch::Patch;

/// Why a CachedImage is denied, as a message for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// `spec.sourceImage` is missing.
    #[error("spec.sourceImage is missing: set the image to cache, such as nginx:1.25")]
    NoImage,
    /// `spec.sourceImage` is not an image reference.
    #[error("spec.sourceImage {image:?} is not an image reference: {problem}")]
    NotAReference {
        /// The image as written, truncated to 256 characters.
        image: String,
        /// The parser's error.
        problem: kuik_core::reference::ReferenceError,
    },
}

/// Returns the patch of `object`, which was `old` before the update (null if it is created).
///
/// # Errors
/// If it has no valid image, and the image is new.
pub fn patch_cached_image(object: &Value, old: &Value) -> Result<Patch, Denial> {
    let image = object.pointer("/spec/sourceImage");
    let is_terminating = object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null());
    let tolerated = is_terminating || (old.is_object() && old.pointer("/spec/sourceImage") == image);
    let mut patch = Patch::default();
    match label(image) {
        Ok(label) => {
            let wanted = [(REPOSITORY_LABEL.to_owned(), Some(label))];
            patch.entries(object, "/metadata/labels", &wanted);
        }
        Err(denial) if !tolerated => return Err(denial),
        Err(_) => {}
    }
    Ok(patch)
}

fn label(image: Option<&Value>) -> Result<String, Denial> {
    let image = image.and_then(Value::as_str).ok_or(Denial::NoImage)?;
    match ImageReference::parse(image) {
        Ok(reference) => Ok(repository_label(&reference.repository())),
        Err(problem) => Err(Denial::NotAReference { image: image.chars().take(256).collect(), problem }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(image: &str) -> Value {
        json!({ "metadata": { "name": "x" }, "spec": { "sourceImage": image } })
    }

    #[test]
    fn label_is_the_repository() {
        let patch = patch_cached_image(&object("nginx:1.25"), &Value::Null).unwrap();
        let expected = json!([{
            "op": "add", "path": "/metadata/labels",
            "value": { "kuik.enix.io/repository": "docker.io-library-nginx" },
        }]);
        assert_eq!(serde_json::to_value(patch).unwrap(), expected);
        let mut labeled = object("nginx:1.25");
        labeled["metadata"]["labels"] = json!({ "kuik.enix.io/repository": "docker.io-library-nginx" });
        assert!(patch_cached_image(&labeled, &Value::Null).unwrap().is_empty());
    }

    #[test]
    fn invalid_image_is_denied_with_parser_error() {
        for image in ["Nginx", "nginx:", "https://nginx", "a//b", ""] {
            let denial = patch_cached_image(&object(image), &Value::Null).unwrap_err().to_string();
            let words = ImageReference::parse(image).unwrap_err().to_string();
            assert!(denial.contains(&words) && denial.contains("spec.sourceImage"), "{denial}");
        }
        assert_eq!(patch_cached_image(&json!({ "spec": {} }), &Value::Null), Err(Denial::NoImage));
        let long = patch_cached_image(&object(&"/".repeat(9000)), &Value::Null).unwrap_err();
        assert!(long.to_string().len() < 1000);
    }

    #[test]
    fn invalid_image_from_before_can_still_be_updated_and_deleted() {
        let invalid = object("Nginx");
        assert!(patch_cached_image(&invalid, &invalid).unwrap().is_empty());
        assert!(patch_cached_image(&invalid, &object("nginx")).is_err(), "the update makes it invalid");
        let mut terminating = invalid;
        terminating["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(patch_cached_image(&terminating, &object("nginx")).unwrap().is_empty());
    }
}
