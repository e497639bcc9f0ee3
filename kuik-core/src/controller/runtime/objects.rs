//! Lookup of the object of an image or a repository by its possible names.
//!
//! Two images can map to one name: the first takes it, and the name of the other ends in a hash. So an object belongs
//! to an image only if its spec names that image.

use std::sync::Arc;

use kube_runtime::reflector::{ObjectRef, Store};

use crate::{
    crd::{CachedImage, Repository, cached_image_name, disambiguated, repository_name},
    reference::{ImageReference, RepositoryName},
};

/// Result of a lookup.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Lookup<K> {
    /// The object exists.
    Existing(Arc<K>),
    /// It does not exist and can be created under this name.
    Vacant(String),
}

/// Looks up the CachedImage of an image.
pub(crate) fn cached_image(store: &Store<CachedImage>, image: &ImageReference<'_>) -> Lookup<CachedImage> {
    let normalized = image.normalized();
    let names = [cached_image_name(image), disambiguated(&normalized)];
    lookup(store, names, |object| is_of_image(object, &normalized))
}

/// Looks up the Repository object of a repository.
pub(crate) fn repository(store: &Store<Repository>, name: &RepositoryName) -> Lookup<Repository> {
    let names = [repository_name(name), disambiguated(&name.to_string())];
    lookup(store, names, |object| is_of_repository(object, name))
}

/// Returns whether the CachedImage has the image of that normalized reference.
pub(crate) fn is_of_image(object: &CachedImage, normalized: &str) -> bool {
    ImageReference::parse(&object.spec.source_image).is_ok_and(|image| image.normalized() == normalized)
}

/// Returns whether the Repository object is of that repository.
pub(crate) fn is_of_repository(object: &Repository, name: &RepositoryName) -> bool {
    object.spec.name.parse::<RepositoryName>().is_ok_and(|own| own == *name)
}

fn lookup<K>(store: &Store<K>, names: [String; 2], is_own: impl Fn(&K) -> bool) -> Lookup<K>
where
    K: kube_core::Resource<DynamicType = ()> + Clone + 'static,
{
    let [plain, hashed] = names;
    let at = |name: &str| store.get(&ObjectRef::new(name));
    let (first, second) = (at(&plain), at(&hashed));
    match (first, second) {
        (Some(object), _) if is_own(&object) => Lookup::Existing(object),
        (_, Some(object)) if is_own(&object) => Lookup::Existing(object),
        (None, _) => Lookup::Vacant(plain),
        (Some(_), _) => Lookup::Vacant(hashed),
    }
}
