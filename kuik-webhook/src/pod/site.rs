//! What a pod spec says about one image: where, for whom, with which pull policy; or why that cannot be told.

use std::fmt;

/// The kinds of place in a pod spec that name an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SiteKind {
    /// `containers[]`.
    Container,
    /// `initContainers[]` that run to their end before the containers start.
    InitContainer,
    /// `initContainers[]` with `restartPolicy: Always`: a native sidecar, which runs beside the containers.
    Sidecar,
    /// `ephemeralContainers[]`: added to a running pod for debugging.
    EphemeralContainer,
    /// `volumes[].image`: an image mounted as a volume.
    ImageVolume,
}

/// One place of a pod spec that names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageSite<'a> {
    /// What kind of place it is.
    pub kind: SiteKind,
    /// The name of the container or of the volume, where it has one.
    pub name: Option<&'a str>,
    /// The JSON pointer (RFC 6901) of the string that holds the image.
    pub pointer: String,
    /// The image as written.
    pub image: &'a str,
    /// The pull policy as written, where there is one.
    pub pull_policy: Option<&'a str>,
}

/// A part of a pod spec that was left alone, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// What kind of place it would have been.
    pub kind: SiteKind,
    /// The name of the container or volume, where it has one.
    pub name: Option<String>,
    /// The JSON pointer of the part.
    pub pointer: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Why a part of a pod spec was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// A list was expected.
    NotAList,
    /// An object was expected.
    NotAnObject,
    /// A string was expected.
    NotAString,
    /// There is no image, or it is empty. Kubernetes allows this in templates that something else completes.
    NoImage,
    /// The pull policy is none of Kubernetes': its rules for the image cannot be known.
    UnknownPullPolicy,
}

impl SiteKind {
    /// The kind as a person would name it: `init container`.
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

impl fmt::Display for SiteKind {
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
