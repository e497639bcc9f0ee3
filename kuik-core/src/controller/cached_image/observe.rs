//! Observed state of a CachedImage: the object, its pods, its repository and its siblings, all from memory.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::{Resource as _, ResourceExt as _};
use kube_runtime::reflector::{ObjectRef, Store};

use super::{Options, convert, filters::Filters, jobs::Jobs, patch::is_repository};
use crate::{
    controller::{
        Usage,
        cached_image::plan::{
            Holder, Naming, Observed, OwnedMetadata, PodUsage, Refresh, RepositoryState, Settings, Siblings,
        },
        repository::{checks_due, interval},
        runtime::objects::{self, Lookup},
    },
    copy::SourceImage,
    crd::{
        CACHED_IMAGE_FINALIZER, CachedImage, FORCE_UPDATE_ANNOTATION, REPOSITORY_LABEL, Repository,
        repository_label,
    },
    reference::{ImageReference, RepositoryName},
};

/// Sources of the observed state.
pub(super) struct View<'a> {
    pub(super) images: &'a Store<CachedImage>,
    pub(super) repositories: &'a Store<Repository>,
    pub(super) usage: &'a dyn Usage,
    pub(super) jobs: &'a Jobs,
    pub(super) filters: &'a Filters,
    pub(super) options: &'a Options,
}

/// Input of a plan, plus what executing its steps needs.
pub(super) struct Snapshot {
    pub(super) observed: Observed,
    /// The image; `None` if the object names no valid image.
    pub(super) image: Option<SourceImage>,
    /// The name of its repository.
    pub(super) repository: Option<RepositoryName>,
}

impl View<'_> {
    /// Collects the observed state of `object`.
    pub(super) fn observe(&self, object: &CachedImage, now: Timestamp) -> Snapshot {
        let name = object.name_any();
        let text = &object.spec.source_image;
        let parsed = ImageReference::parse(text).map_err(|error| error.to_string()).and_then(|reference| {
            let image = SourceImage::new(&reference).map_err(|error| error.to_string())?;
            image.repository().encoded().map_err(|error| error.to_string())?;
            Ok((reference, image))
        });
        let (naming, normalized, image) = match parsed {
            Ok((reference, image)) => {
                let normalized = reference.normalized();
                let naming = Naming::of(&name, &reference, |other| self.holder(other, &name, &normalized));
                (naming, Some(normalized), Some(image))
            }
            Err(problem) => (Naming::Invalid { problem }, None, None),
        };
        let repository = image.as_ref().map(|image| image.repository().clone());
        let registry = repository.as_ref().map(RepositoryName::registry);
        let uid = object.uid().unwrap_or_default();
        let jobs = self.jobs.get(&name, &uid, registry, now);
        let settings = Settings {
            expiry_delay: self.options.expiry_delay,
            verify_interval: self.options.verify_interval,
            show_after: self.options.show_after,
        };
        let (repository_name, facts) =
            repository.as_ref().map(|name| self.repository(name, text, now)).unwrap_or_default();
        let share_tag = object.meta().deletion_timestamp.is_some()
            && image.as_ref().is_some_and(|image| share_tag(self.images, Some(&name), image));
        let usage = match &normalized {
            Some(normalized) => self.usage.of(normalized),
            // No pod can use an invalid image, but usage stays unknown until the pods are synced.
            None => self.usage.of("").map(|_| crate::controller::ImageUsage::default()),
        };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let observed = Observed {
            source_image: text.clone(),
            by_digest: image.as_ref().is_some_and(|image| image.digest().is_some()),
            image: normalized,
            naming,
            generation: object.meta().generation,
            deleting: object.meta().deletion_timestamp.is_some(),
            metadata: owned_metadata(object),
            force_update: object
                .annotations()
                .get(FORCE_UPDATE_ANNOTATION)
                .is_some_and(|value| value == "true"),
            annotations: foreign_annotations(object),
            expires_at: object.spec.expires_at.as_ref().map(convert::from_api),
            retain: object.spec.retain == Some(true),
            status: object.status.as_ref().map(convert::status).unwrap_or_default(),
            repository: facts,
            usage: usage.map(|usage| PodUsage { pods: usage.pods, count: count(usage.count) }),
            siblings: Siblings {
                share_tag,
                label: repository.as_ref().map(repository_label).unwrap_or_default(),
                repository_name,
            },
            job: jobs.job,
            outcome: jobs.outcome,
            memory: jobs.memory,
            registry_retry_at: jobs.registry_retry_at,
            cache_retry_at: jobs.cache_retry_at,
            settings,
            name,
        };
        Snapshot { observed, image, repository }
    }

    /// Returns which image's object holds a name. An object being deleted holds none: its name becomes free.
    fn holder(&self, name: &str, own: &str, normalized: &str) -> Holder {
        if name == own {
            return Holder::ThisImage;
        }
        let Some(object) = self.images.get(&ObjectRef::new(name)) else { return Holder::Free };
        if object.meta().deletion_timestamp.is_some() {
            return Holder::Free;
        }
        match ImageReference::parse(&object.spec.source_image) {
            Ok(reference) if reference.normalized() == normalized => Holder::ThisImage,
            _ => Holder::AnotherImage,
        }
    }

    /// Returns the name and the state of the Repository object.
    fn repository(
        &self,
        name: &RepositoryName,
        image: &str,
        now: Timestamp,
    ) -> (String, Option<RepositoryState>) {
        let (object_name, object) = match objects::repository(self.repositories, name) {
            Lookup::Existing(object) => (object.name_any(), Some(object)),
            Lookup::Vacant(name) => (name, None),
        };
        let facts = object.map(|object| RepositoryState {
            uid: object.uid().unwrap_or_default(),
            deleting: object.meta().deletion_timestamp.is_some(),
            refresh: self.refresh(&object, image, now),
        });
        (object_name, facts)
    }

    /// Returns when tags of the repository are checked: never if the interval or a filter is invalid.
    fn refresh(&self, repository: &Repository, image: &str, now: Timestamp) -> Refresh {
        let filters = repository.spec.update_filters.as_deref().unwrap_or_default();
        let due = checks_due(repository, convert::to_api(now).0);
        match due.zip(interval(repository)) {
            Some((from, interval)) if self.filters.matches(filters, image) => {
                Refresh::Every { from: convert::from_api(&Time(from)), interval }
            }
            _ => Refresh::Never,
        }
    }
}

/// Returns whether an object other than `own` uses the same tag of the cache; any object if `own` is `None`.
pub(super) fn share_tag(images: &Store<CachedImage>, own: Option<&str>, image: &SourceImage) -> bool {
    let shares = |other: &CachedImage| {
        own != Some(other.name_any().as_str())
            && other.meta().deletion_timestamp.is_none()
            && ImageReference::parse(&other.spec.source_image)
                .ok()
                .and_then(|reference| SourceImage::new(&reference).ok())
                .is_some_and(|other| {
                    other.repository() == image.repository() && other.cache_tag() == image.cache_tag()
                })
    };
    images.find(shares).is_some()
}

/// Returns a hash of the annotations, without the one that the controller removes.
fn foreign_annotations(object: &CachedImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    let foreign = object.annotations().iter().filter(|(name, _)| *name != FORCE_UPDATE_ANNOTATION);
    foreign.for_each(|annotation| annotation.hash(&mut hasher));
    hasher.finish()
}

fn owned_metadata(object: &CachedImage) -> OwnedMetadata {
    let owners = object.meta().owner_references.iter().flatten().filter(|owner| is_repository(owner));
    OwnedMetadata {
        finalizer: object.finalizers().iter().any(|finalizer| finalizer == CACHED_IMAGE_FINALIZER),
        label: object.labels().get(REPOSITORY_LABEL).cloned(),
        owner: owners.map(|owner| owner.uid.clone()).next(),
    }
}
