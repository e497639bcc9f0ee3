//! Finds the object of an image or a repository under the names that it can have.
//!
//! Two images can come to one name: the first has it, and the other one's name ends in a hash. So an object is the
//! image's own only where what it says names that image.

use std::sync::Arc;

use kube_runtime::reflector::{ObjectRef, Store};

use crate::{
    crd::{CachedImage, Repository, cached_image_name, disambiguated, repository_name},
    reference::{ImageReference, RepositoryName},
};

/// Where the object of something is, or can be made.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place<K> {
    /// It is there.
    Here(Arc<K>),
    /// It can be made under this name.
    Free(String),
}

/// Where the CachedImage of the image of that full name is.
pub(super) fn cached_image(store: &Store<CachedImage>, image: &ImageReference<'_>) -> Place<CachedImage> {
    let normalized = image.normalized();
    let names = [cached_image_name(image), disambiguated(&normalized)];
    place(store, names, |object| is_of_image(object, &normalized))
}

/// Where the Repository is.
pub(super) fn repository(store: &Store<Repository>, name: &RepositoryName) -> Place<Repository> {
    let names = [repository_name(name), disambiguated(&name.to_string())];
    place(store, names, |object| is_of_repository(object, name))
}

/// Whether the CachedImage is of the image of that full name.
pub(super) fn is_of_image(object: &CachedImage, normalized: &str) -> bool {
    ImageReference::parse(&object.spec.source_image).is_ok_and(|image| image.normalized() == normalized)
}

/// Whether the Repository is of that name.
pub(super) fn is_of_repository(object: &Repository, name: &RepositoryName) -> bool {
    object.spec.name.parse::<RepositoryName>().is_ok_and(|own| own == *name)
}

fn place<K>(store: &Store<K>, names: [String; 2], is_own: impl Fn(&K) -> bool) -> Place<K>
where
    K: kube_core::Resource<DynamicType = ()> + Clone + 'static,
{
    let [plain, hashed] = names;
    let at = |name: &str| store.get(&ObjectRef::new(name));
    let (first, second) = (at(&plain), at(&hashed));
    match (first, second) {
        (Some(object), _) if is_own(&object) => Place::Here(object),
        (_, Some(object)) if is_own(&object) => Place::Here(object),
        (None, _) => Place::Free(plain),
        (Some(_), _) => Place::Free(hashed),
    }
}
