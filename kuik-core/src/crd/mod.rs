//! Custom resources, `kuik.enix.io/v1alpha1`.
//!
//! - [`CachedImage`]: one image, kept in the cache while pods use it.
//! - [`Repository`]: settings shared by its images: pull secrets and update checks.
//! - [`cached_image_name`], [`repository_name`]: object names of an image or a repository.
//! - [`definitions`]: the CustomResourceDefinitions.
//!
//! Objects are compatible with earlier versions in both directions: fields are only ever added, and all but the image
//! or repository name are optional.

mod cached_image;
mod definitions;
mod duration;
mod lenient;
mod names;
mod object_name;
mod repository;
mod schema;

pub use cached_image::{
    CachedImage, CachedImagePhase, CachedImageSpec, CachedImageStatus, PodReference, PullProgress, UsedBy,
};
pub use definitions::definitions;
pub use names::{
    CACHED_IMAGE_FINALIZER, FORCE_UPDATE_ANNOTATION, GROUP, REPOSITORY_FINALIZER, REPOSITORY_LABEL, VERSION,
};
pub use object_name::{cached_image_name, disambiguated, repository_label, repository_name};
pub use repository::{
    InvalidInterval, PullSecret, Repository, RepositoryPhase, RepositorySpec, RepositoryStatus,
    UpdateInterval,
};

pub use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
