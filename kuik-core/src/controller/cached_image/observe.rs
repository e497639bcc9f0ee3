//! What is seen of a CachedImage: the object, its pods, its repository and its neighbours, all from memory.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::{Resource as _, ResourceExt as _};
use kube_runtime::reflector::{ObjectRef, Store};

use super::{Options, convert, filters::Filters, jobs::Jobs, patch::is_repository};
use crate::{
    controller::{
        Usage,
        objects::{self, Place},
        repository::{checks_due, interval},
    },
    copy::SourceImage,
    crd::{
        CACHED_IMAGE_FINALIZER, CachedImage, FORCE_UPDATE_ANNOTATION, REPOSITORY_LABEL, Repository,
        repository_label,
    },
    plan::{Facts, Holder, Naming, Observed, Others, Refresh, RepositoryFacts, Settings, Used},
    reference::{ImageReference, RepositoryName},
};

/// Where is looked.
pub(super) struct View<'a> {
    pub(super) images: &'a Store<CachedImage>,
    pub(super) repositories: &'a Store<Repository>,
    pub(super) usage: &'a dyn Usage,
    pub(super) jobs: &'a Jobs,
    pub(super) filters: &'a Filters,
    pub(super) options: &'a Options,
}

/// What is seen, and what jobs and steps need beside it.
pub(super) struct Sight {
    pub(super) observed: Observed,
    /// The image; `None` where the object names none.
    pub(super) image: Option<SourceImage>,
    /// The name of the object of its repository.
    pub(super) repository: Option<RepositoryName>,
}

impl View<'_> {
    pub(super) fn look(&self, object: &CachedImage, now: Timestamp) -> Sight {
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
        let seen = self.jobs.see(&name, &uid, registry, now);
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
            // Nobody can use what is no image, once the pods are known.
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
            facts: facts_of(object),
            force_update: object
                .annotations()
                .get(FORCE_UPDATE_ANNOTATION)
                .is_some_and(|value| value == "true"),
            expires_at: object.spec.expires_at.as_ref().map(convert::from_api),
            retain: object.spec.retain == Some(true),
            status: object.status.as_ref().map(convert::status).unwrap_or_default(),
            repository: facts,
            usage: usage.map(|usage| Used { pods: usage.pods, count: count(usage.count) }),
            others: Others {
                share_tag,
                label: repository.as_ref().map(repository_label).unwrap_or_default(),
                repository_name,
            },
            job: seen.job,
            outcome: seen.outcome,
            memory: seen.memory,
            registry_free_at: seen.registry_free_at,
            cache_free_at: seen.cache_free_at,
            settings,
            name,
        };
        Sight { observed, image, repository }
    }

    /// Whose object has a name. One that is on its way out holds none: its name is free once it is gone.
    fn holder(&self, name: &str, own: &str, normalized: &str) -> Holder {
        if name == own {
            return Holder::ThisImage;
        }
        let Some(object) = self.images.get(&ObjectRef::new(name)) else { return Holder::Nobody };
        if object.meta().deletion_timestamp.is_some() {
            return Holder::Nobody;
        }
        match ImageReference::parse(&object.spec.source_image) {
            Ok(reference) if reference.normalized() == normalized => Holder::ThisImage,
            _ => Holder::AnotherImage,
        }
    }

    /// The name of the object of a repository, and what that says.
    fn repository(
        &self,
        name: &RepositoryName,
        image: &str,
        now: Timestamp,
    ) -> (String, Option<RepositoryFacts>) {
        let (object_name, object) = match objects::repository(self.repositories, name) {
            Place::Here(object) => (object.name_any(), Some(object)),
            Place::Free(name) => (name, None),
        };
        let facts = object.map(|object| RepositoryFacts {
            uid: object.uid().unwrap_or_default(),
            deleting: object.meta().deletion_timestamp.is_some(),
            refresh: self.refresh(&object, image, now),
        });
        (object_name, facts)
    }

    /// When tags of the repository are checked. What is no duration or no pattern checks nothing.
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

/// Whether another object than `own` keeps the same tag of the cache; any object where there is no `own`.
pub(super) fn share_tag(images: &Store<CachedImage>, own: Option<&str>, image: &SourceImage) -> bool {
    let shares = |other: &CachedImage| {
        own != Some(other.name_any().as_str())
            && other.meta().deletion_timestamp.is_none()
            && ImageReference::parse(&other.spec.source_image)
                .ok()
                .and_then(|reference| SourceImage::new(&reference).ok())
                .is_some_and(|other| {
                    other.repository() == image.repository() && other.kept_as() == image.kept_as()
                })
    };
    images.find(shares).is_some()
}

fn facts_of(object: &CachedImage) -> Facts {
    let owners = object.meta().owner_references.iter().flatten().filter(|owner| is_repository(owner));
    Facts {
        finalizer: object.finalizers().iter().any(|finalizer| finalizer == CACHED_IMAGE_FINALIZER),
        label: object.labels().get(REPOSITORY_LABEL).cloned(),
        owner: owners.map(|owner| owner.uid.clone()).next(),
    }
}
