//! Which name the object of an image has.
//!
//! The rule is one for whoever creates objects and for whoever looks after them. An image has the name that is made of
//! its reference, unless the object of another image holds that: then it has the one that ends in a hash. An object that
//! has the name with the hash already keeps it, for as long as it is the only one of its image.

use crate::{
    crd::{cached_image_name, disambiguated},
    reference::ImageReference,
};

/// Whose object has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// There is no object of that name.
    Nobody,
    /// The object of that name is of the image asked about.
    ThisImage,
    /// The object of that name is of another image, or of none.
    AnotherImage,
}

/// How an object is named, for the image that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// As it should be.
    Right,
    /// Otherwise, and no object of its image is named as it should be.
    Wrong {
        /// What it should be named.
        right: String,
    },
    /// Otherwise, and there is an object of its image that is named as it should be.
    Duplicate,
    /// What it is of is no image.
    Invalid {
        /// Why.
        problem: String,
    },
}

/// The name of the object of `image`, given whose object has which name.
///
/// ```
/// use kuik_core::{plan::{Holder, name_of}, reference::ImageReference};
///
/// let image = ImageReference::parse("foo/bar-baz:1")?;
/// assert_eq!(name_of(&image, |_| Holder::Nobody), "docker.io-foo-bar-baz-1");
/// let taken = |name: &str| if name == "docker.io-foo-bar-baz-1" { Holder::AnotherImage } else { Holder::Nobody };
/// assert!(name_of(&image, taken).starts_with("docker.io-foo-bar-baz-1-"));
/// # Ok::<(), kuik_core::reference::ReferenceError>(())
/// ```
pub fn name_of(image: &ImageReference<'_>, holder: impl Fn(&str) -> Holder) -> String {
    let plain = cached_image_name(image);
    match holder(&plain) {
        Holder::ThisImage => plain,
        Holder::AnotherImage => disambiguated(&image.normalized()),
        Holder::Nobody => {
            let hashed = disambiguated(&image.normalized());
            if holder(&hashed) == Holder::ThisImage { hashed } else { plain }
        }
    }
}

impl Naming {
    /// How the object `name` of `image` is named, given whose object has which name, this one included.
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
