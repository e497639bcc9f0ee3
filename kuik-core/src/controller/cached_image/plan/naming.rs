//! Object names of images.
//!
//! The controllers that create objects and those that reconcile them share this rule. An image has the name derived
//! from its reference, unless the object of another image holds it: then the name ends in a hash. An object that
//! already has the hashed name keeps it as long as it is the only one of its image.

use crate::{
    crd::{cached_image_name, disambiguated},
    reference::ImageReference,
};

/// Which image's object holds a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// There is no object of that name.
    Free,
    /// The object of that name has the given image.
    ThisImage,
    /// The object of that name has another image, or an invalid one.
    AnotherImage,
}

/// Whether an object has the canonical name of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// It has the canonical name.
    Right,
    /// It does not, and no object has the canonical name.
    Wrong {
        /// The canonical name.
        right: String,
    },
    /// It does not, and another object of its image has the canonical name.
    Duplicate,
    /// Its image reference is invalid.
    Invalid {
        /// The reason.
        problem: String,
    },
}

/// Returns the name of the object of `image`. `holder` returns which image's object holds a name.
///
/// ```
/// use kuik_core::controller::cached_image::plan::{Holder, name_of};
/// use kuik_core::reference::ImageReference;
///
/// let image = ImageReference::parse("foo/bar-baz:1")?;
/// assert_eq!(name_of(&image, |_| Holder::Free), "docker.io-foo-bar-baz-1");
/// let taken = |name: &str| if name == "docker.io-foo-bar-baz-1" { Holder::AnotherImage } else { Holder::Free };
/// assert!(name_of(&image, taken).starts_with("docker.io-foo-bar-baz-1-"));
/// # Ok::<(), kuik_core::reference::ReferenceError>(())
/// ```
pub fn name_of(image: &ImageReference<'_>, holder: impl Fn(&str) -> Holder) -> String {
    let plain = cached_image_name(image);
    match holder(&plain) {
        Holder::ThisImage => plain,
        Holder::AnotherImage => disambiguated(&image.normalized()),
        Holder::Free => {
            let hashed = disambiguated(&image.normalized());
            if holder(&hashed) == Holder::ThisImage { hashed } else { plain }
        }
    }
}

impl Naming {
    /// Compares `name` with the canonical name of `image`. `holder` covers all objects, including this one.
    pub fn of(name: &str, image: &ImageReference<'_>, holder: impl Fn(&str) -> Holder) -> Self {
        let right = name_of(image, &holder);
        if right == name {
            Self::Right
        } else if holder(&right) == Holder::ThisImage {
            Self::Duplicate
        } else {
            Self::Wrong { right }
        }
    }
}
