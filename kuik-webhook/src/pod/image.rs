//! An image in a pod spec: its field, container and pull policy; or why it was skipped.

use std::fmt;

use kuik_core::rewrite::{original_image_annotation, original_init_image_annotation};

/// The kinds of field in a pod spec that name an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageField {
    /// `containers[]`.
    Container,
    /// `initContainers[]` that complete before the containers start.
    InitContainer,
    /// `initContainers[]` with `restartPolicy: Always`: a native sidecar, which runs alongside the containers.
    Sidecar,
    /// `ephemeralContainers[]`: added to a running pod for debugging.
    EphemeralContainer,
    /// `volumes[].image`: an image mounted as a volume.
    ImageVolume,
}

/// One image of a pod spec.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodImage<'a> {
    /// Kind of its field.
    pub field: ImageField,
    /// Name of the container or volume, if it has one.
    pub name: Option<&'a str>,
    /// JSON pointer (RFC 6901) to the string that holds the image.
    pub pointer: String,
    /// The image as written.
    pub image: &'a str,
    /// The pull policy as written, if there is one.
    pub pull_policy: Option<&'a str>,
}

/// A part of a pod spec that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Kind of field that was expected.
    pub field: ImageField,
    /// Name of the container or volume, if it has one.
    pub name: Option<String>,
    /// JSON pointer to the part.
    pub pointer: String,
    /// Why it was skipped.
    pub problem: Problem,
}

/// Why a part of a pod spec was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// Expected a list.
    NotAList,
    /// Expected an object.
    NotAnObject,
    /// Expected a string.
    NotAString,
    /// The image is absent or empty. Kubernetes allows this in templates that another component completes.
    NoImage,
    /// The pull policy is not one of Kubernetes, so its effect is unknown.
    UnknownPullPolicy,
}

impl PodImage<'_> {
    /// Returns the annotation for the original image; `None` for images without one: of ephemeral containers, volumes,
    /// and containers without a name.
    #[must_use]
    pub fn original_annotation(&self) -> Option<String> {
        match self.field {
            ImageField::Container => self.name.map(original_image_annotation),
            ImageField::InitContainer | ImageField::Sidecar => self.name.map(original_init_image_annotation),
            ImageField::EphemeralContainer | ImageField::ImageVolume => None,
        }
    }
}

impl ImageField {
    /// Returns the kind as text for users, such as `init container`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::InitContainer => "init container",
            Self::Sidecar => "sidecar",
            Self::EphemeralContainer => "ephemeral container",
            Self::ImageVolume => "image volume",
        }
    }
}

impl fmt::Display for ImageField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAList => "is not a list",
            Self::NotAnObject => "is not an object",
            Self::NotAString => "is not a string",
            Self::NoImage => "has no image",
            Self::UnknownPullPolicy => "has an unknown pull policy",
        })
    }
}
