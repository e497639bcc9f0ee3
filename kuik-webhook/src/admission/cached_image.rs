//! What a CachedImage becomes: its label, or a refusal where it names no image.
//!
//! Only an image that is new is judged. One that was there before, however wrong, can still be labelled, and above all let
//! go of: an object that no update may touch could not even lose its finalizer.

use kuik_core::{
    crd::{REPOSITORY_LABEL, repository_label},
    reference::ImageReference,
};
use serde_json::Value;

use super::patch::Patch;

/// Why a CachedImage is refused; for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It names no image.
    #[error("spec.sourceImage is missing: write the image to keep, such as nginx:1.25")]
    NoImage,
    /// What it names is no image.
    #[error("spec.sourceImage {image:?} is not an image reference: {problem}")]
    NotAReference {
        /// The image as written, or how it begins.
        image: String,
        /// What is wrong with it.
        problem: kuik_core::reference::ReferenceError,
    },
}

/// What becomes of `object`, which was `old` (null where it is made).
///
/// # Errors
/// Where it names no image, and did not do so before.
pub fn patch_cached_image(object: &Value, old: &Value) -> Result<Patch, Refusal> {
    let image = object.pointer("/spec/sourceImage");
    let ends = object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null());
    let tolerated = ends || (old.is_object() && old.pointer("/spec/sourceImage") == image);
    let mut patch = Patch::default();
    match label(image) {
        Ok(label) => {
            let wanted = [(REPOSITORY_LABEL.to_owned(), Some(label))];
            patch.entries(object, "/metadata/labels", &wanted);
        }
        Err(refusal) if !tolerated => return Err(refusal),
        Err(_) => {}
    }
    Ok(patch)
}

fn label(image: Option<&Value>) -> Result<String, Refusal> {
    let image = image.and_then(Value::as_str).ok_or(Refusal::NoImage)?;
    match ImageReference::parse(image) {
        Ok(reference) => Ok(repository_label(&reference.repository())),
        Err(problem) => Err(Refusal::NotAReference { image: image.chars().take(256).collect(), problem }),
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
    fn the_label_names_the_repository() {
        let patch = patch_cached_image(&object("nginx:1.25"), &Value::Null).unwrap();
        let expected = json!([{
            "op": "add", "path": "/metadata/labels",
            "value": { "kuik.enix.io/repository": "docker.io-library-nginx" },
        }]);
        assert_eq!(serde_json::to_value(patch).unwrap(), expected);
        let mut labelled = object("nginx:1.25");
        labelled["metadata"]["labels"] = json!({ "kuik.enix.io/repository": "docker.io-library-nginx" });
        assert!(patch_cached_image(&labelled, &Value::Null).unwrap().is_empty());
    }

    #[test]
    fn what_does_not_parse_is_refused_with_the_parser_s_words() {
        for image in ["Nginx", "nginx:", "https://nginx", "a//b", ""] {
            let refused = patch_cached_image(&object(image), &Value::Null).unwrap_err().to_string();
            let words = ImageReference::parse(image).unwrap_err().to_string();
            assert!(refused.contains(&words) && refused.contains("spec.sourceImage"), "{refused}");
        }
        assert_eq!(patch_cached_image(&json!({ "spec": {} }), &Value::Null), Err(Refusal::NoImage));
        let long = patch_cached_image(&object(&"/".repeat(9000)), &Value::Null).unwrap_err();
        assert!(long.to_string().len() < 1000);
    }

    #[test]
    fn what_was_wrong_before_can_be_let_go_of() {
        let wrong = object("Nginx");
        assert!(patch_cached_image(&wrong, &wrong).unwrap().is_empty());
        assert!(patch_cached_image(&wrong, &object("nginx")).is_err(), "this makes it wrong");
        let mut ends = wrong;
        ends["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(patch_cached_image(&ends, &object("nginx")).unwrap().is_empty());
    }
}
