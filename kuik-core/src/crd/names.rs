//! Names of the API, its labels, annotations and finalizers.

/// The API group of the custom resources.
pub const GROUP: &str = "kuik.enix.io";

/// The version of the custom resources.
pub const VERSION: &str = "v1alpha1";

/// Finalizer of a CachedImage, until its tag is removed from the cache.
pub const CACHED_IMAGE_FINALIZER: &str = "cachedimage.kuik.enix.io/finalizer";

/// Finalizer of a Repository, until its CachedImages are deleted.
pub const REPOSITORY_FINALIZER: &str = "repository.kuik.enix.io/finalizer";

/// Requests one refresh if `"true"` on a CachedImage.
pub const FORCE_UPDATE_ANNOTATION: &str = "cachedimage.kuik.enix.io/forceUpdate";

/// Names the Repository of a CachedImage.
pub const REPOSITORY_LABEL: &str = "kuik.enix.io/repository";
