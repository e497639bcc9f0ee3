//! The custom resources of a cluster that uses kuik, `kuik.enix.io/v1alpha1`: what their fields mean, and their names.
//!
//! - [`CachedImage`]: one image that is kept close, for as long as a pod uses it.
//! - [`Repository`]: what its images share: pull secrets, and when their tags are checked again.
//! - [`cached_image_name`], [`repository_name`]: what the object of an image or of a repository is called.
//! - [`definitions`]: what a cluster is told of them.
//!
//! Objects that an earlier kuik wrote are read without change, and what this one writes is read by an earlier one:
//! fields are only ever added, and everything but what names the image is optional.

mod cached_image;
mod definitions;
mod duration;
mod lenient;
mod names;
mod object_name;
mod repository;
mod schema;

pub use cached_image::{
    CachedImage, CachedImagePhase, CachedImageSpec, CachedImageStatus, PodReference, UsedBy,
};
pub use definitions::definitions;
pub use names::{
    CACHED_IMAGE_FINALIZER, FORCE_UPDATE_ANNOTATION, GROUP, MANAGED_LABEL, REPOSITORY_FINALIZER,
    REPOSITORY_LABEL, REWRITE_IMAGES_ANNOTATION, VERSION, original_image_annotation,
    original_init_image_annotation,
};
pub use object_name::{cached_image_name, disambiguated, repository_label, repository_name};
pub use repository::{
    InvalidInterval, PullSecret, Repository, RepositoryPhase, RepositorySpec, RepositoryStatus,
    UpdateInterval,
};

pub use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
