//! Pod index: which pods use which image, counted exactly and updated incrementally.
//!
//! Invariant: the index equals one built from scratch from the current pods. It holds only names, each once, and each
//! update returns only what changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{rules::WantedImage, slim::SlimPod};
use crate::{
    controller::{ImageUsage, MAX_NAMED_PODS},
    reference::RepositoryName,
};

/// Index of images by the pods that use them.
#[derive(Debug, Default)]
pub struct PodIndex {
    pods: HashMap<Arc<str>, PodEntry>,
    images: HashMap<Arc<str>, ImageEntry>,
    repositories: HashMap<RepositoryName, RepositoryEntry>,
    /// Pods known before the list in progress that have not appeared in it so far.
    unlisted: Option<HashSet<Arc<str>>>,
}

/// Images and secrets of one pod.
#[derive(Debug, PartialEq, Eq)]
struct PodEntry {
    /// Sorted by name, one per container.
    images: Box<[WantedImage]>,
    secrets: Box<[SecretSource]>,
}

#[derive(Debug)]
struct ImageEntry {
    image: WantedImage,
    pods: BTreeSet<Arc<str>>,
    containers: usize,
}

#[derive(Debug, Default)]
struct RepositoryEntry {
    images: BTreeSet<Arc<str>>,
    /// Number of uses of the repository's images per secret source.
    secrets: BTreeMap<SecretSource, usize>,
}

/// Source of a pod's pull secrets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecretSource {
    /// The pod names the secret.
    Secret {
        /// The pod's namespace.
        namespace: Arc<str>,
        /// The secret.
        name: Arc<str>,
    },
    /// The pull secrets of the pod's ServiceAccount.
    ServiceAccount {
        /// The pod's namespace.
        namespace: Arc<str>,
        /// The account.
        name: Arc<str>,
    },
}

/// Result of an update.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Normalized references of the images whose pods changed.
    pub images: BTreeSet<Arc<str>>,
    /// Repositories whose pull secrets changed.
    pub repositories: BTreeSet<RepositoryName>,
}

impl PodIndex {
    /// Adds or updates a pod with these images.
    pub fn apply(&mut self, pod: &SlimPod, images: Vec<WantedImage>) -> Changes {
        let key = key(pod);
        if let Some(unlisted) = &mut self.unlisted {
            unlisted.remove(&*key);
        }
        let entry = self.entry(pod, images);
        if self.pods.get(&*key) == entry.as_ref() {
            return Changes::default();
        }
        let mut changes = Changes::default();
        self.take_out(&key, &mut changes);
        if let Some(entry) = entry {
            self.put_in(key, entry, &mut changes);
        }
        self.settle(changes)
    }

    /// Removes a pod.
    pub fn delete(&mut self, pod: &SlimPod) -> Changes {
        let mut changes = Changes::default();
        self.take_out(&key(pod), &mut changes);
        self.settle(changes)
    }

    /// Starts a list of all pods: pods that do not appear in it are removed when it [ends](Self::end_list).
    pub fn begin_list(&mut self) {
        self.unlisted = Some(self.pods.keys().cloned().collect());
    }

    /// Completes the list.
    pub fn end_list(&mut self) -> Changes {
        let mut changes = Changes::default();
        for pod in self.unlisted.take().unwrap_or_default() {
            self.take_out(&pod, &mut changes);
        }
        self.settle(changes)
    }

    /// Returns the image of that normalized reference, if a pod uses it.
    #[must_use]
    pub fn image(&self, normalized: &str) -> Option<&WantedImage> {
        Some(&self.images.get(normalized)?.image)
    }

    /// Iterates over all images that pods use.
    pub fn images(&self) -> impl Iterator<Item = &WantedImage> {
        self.images.values().map(|entry| &entry.image)
    }

    /// Returns the number and the first names of the pods that use the image of that normalized reference.
    #[must_use]
    pub fn usage(&self, normalized: &str) -> ImageUsage {
        let Some(entry) = self.images.get(normalized) else { return ImageUsage::default() };
        ImageUsage {
            count: entry.pods.len(),
            pods: entry.pods.iter().take(MAX_NAMED_PODS).map(ToString::to_string).collect(),
        }
    }

    /// Returns the number of containers that use the image of that normalized reference.
    #[must_use]
    pub fn containers(&self, normalized: &str) -> usize {
        self.images.get(normalized).map_or(0, |entry| entry.containers)
    }

    /// Returns whether a pod uses an image of the repository.
    #[must_use]
    pub fn uses(&self, repository: &RepositoryName) -> bool {
        self.repositories.contains_key(repository)
    }

    /// Iterates over the sources of pull secrets for a repository, those of pods first.
    pub fn secrets(&self, repository: &RepositoryName) -> impl Iterator<Item = &SecretSource> {
        self.repositories.get(repository).into_iter().flat_map(|entry| entry.secrets.keys())
    }

    /// Returns the repositories that pods with a ServiceAccount use.
    #[must_use]
    pub fn repositories_of(&self, namespace: &str, service_account: &str) -> Vec<RepositoryName> {
        let account =
            SecretSource::ServiceAccount { namespace: namespace.into(), name: service_account.into() };
        let uses = |(name, entry): (&RepositoryName, &RepositoryEntry)| {
            entry.secrets.contains_key(&account).then(|| name.clone())
        };
        self.repositories.iter().filter_map(uses).collect()
    }

    /// Returns the entry of a pod, with interned names; `None` if the pod uses no image to cache.
    fn entry(&self, pod: &SlimPod, mut images: Vec<WantedImage>) -> Option<PodEntry> {
        if images.is_empty() {
            return None;
        }
        for image in &mut images {
            if let Some(known) = self.images.get(&image.normalized)
                && known.image.written == image.written
            {
                *image = known.image.clone();
            }
        }
        images.sort_unstable();
        let namespace: Arc<str> = pod.metadata.namespace.as_deref().unwrap_or_default().into();
        let account = (!pod.service_account.is_empty()).then(|| SecretSource::ServiceAccount {
            namespace: namespace.clone(),
            name: pod.service_account.as_str().into(),
        });
        let named = pod
            .pull_secrets
            .iter()
            .map(|name| SecretSource::Secret { namespace: namespace.clone(), name: name.as_str().into() });
        let secrets: BTreeSet<_> = named.chain(account).collect();
        Some(PodEntry { images: images.into(), secrets: secrets.into_iter().collect() })
    }

    fn put_in(&mut self, pod: Arc<str>, entry: PodEntry, changes: &mut Changes) {
        for image in &entry.images {
            let key = image.normalized.clone();
            let known = self.images.entry(key.clone()).or_insert_with(|| ImageEntry {
                image: image.clone(),
                pods: BTreeSet::new(),
                containers: 0,
            });
            known.containers += 1;
            let repository = self.repositories.entry(image.repository.clone()).or_default();
            if repository.images.insert(key.clone()) && repository.images.len() == 1 {
                changes.repositories.insert(image.repository.clone());
            }
            for secret in &entry.secrets {
                let uses = repository.secrets.entry(secret.clone()).or_insert(0);
                *uses += 1;
                if *uses == 1 {
                    changes.repositories.insert(image.repository.clone());
                }
            }
            if known.pods.insert(pod.clone()) {
                changes.images.insert(key);
            }
        }
        self.pods.insert(pod, entry);
    }

    fn take_out(&mut self, pod: &str, changes: &mut Changes) {
        let Some(entry) = self.pods.remove(pod) else { return };
        for image in &entry.images {
            if let Some(known) = self.images.get_mut(&image.normalized) {
                known.containers = known.containers.saturating_sub(1);
                if known.pods.remove(pod) {
                    changes.images.insert(image.normalized.clone());
                }
            }
            let Some(repository) = self.repositories.get_mut(&image.repository) else { continue };
            for secret in &entry.secrets {
                let Some(uses) = repository.secrets.get_mut(secret) else { continue };
                *uses = uses.saturating_sub(1);
                if *uses == 0 {
                    repository.secrets.remove(secret);
                    changes.repositories.insert(image.repository.clone());
                }
            }
        }
    }

    /// Removes images and repositories that no pod uses anymore.
    fn settle(&mut self, changes: Changes) -> Changes {
        for key in &changes.images {
            let Some(entry) = self.images.get(key).filter(|entry| entry.pods.is_empty()) else { continue };
            if let Some(repository) = self.repositories.get_mut(&entry.image.repository) {
                repository.images.remove(key);
                if repository.images.is_empty() {
                    self.repositories.remove(&entry.image.repository);
                }
            }
            self.images.remove(key);
        }
        changes
    }
}

/// `namespace/name`.
fn key(pod: &SlimPod) -> Arc<str> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    [of(&pod.metadata.namespace), of(&pod.metadata.name)].join("/").into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(name: &str, secrets: &[&str]) -> SlimPod {
        let mut pod = SlimPod::default();
        pod.metadata.namespace = Some("shop".to_owned());
        pod.metadata.name = Some(name.to_owned());
        pod.pull_secrets = secrets.iter().map(|&secret| secret.to_owned()).collect();
        pod.service_account = "robot".to_owned();
        pod
    }

    fn images(written: &[&str]) -> Vec<WantedImage> {
        written.iter().map(|written| WantedImage::parse(written).unwrap()).collect()
    }

    const NGINX: &str = "docker.io/library/nginx:1";

    #[test]
    fn unchanged_pod_yields_no_changes() {
        let mut index = PodIndex::default();
        let changes = index.apply(&pod("a", &["s"]), images(&["nginx:1", "nginx:1", "redis:7"]));
        assert_eq!((changes.images.len(), changes.repositories.len()), (2, 2));
        let again = index.apply(&pod("a", &["s"]), images(&["redis:7", "nginx:1", "nginx:1"]));
        assert_eq!(again, Changes::default());
        assert_eq!((index.usage(NGINX).count, index.containers(NGINX)), (1, 2));
    }

    #[test]
    fn second_pod_with_same_secrets_changes_only_the_image() {
        let mut index = PodIndex::default();
        index.apply(&pod("a", &["s"]), images(&["nginx:1"]));
        let changes = index.apply(&pod("b", &["s"]), images(&["docker.io/library/nginx:1"]));
        assert_eq!((changes.images.len(), changes.repositories.len()), (1, 0));
        assert_eq!(index.usage(NGINX).count, 2);
        // As written by the first pod, as long as any pod uses it.
        assert_eq!(&*index.image(NGINX).unwrap().written, "nginx:1");
    }

    #[test]
    fn last_pod_removes_its_image() {
        let mut index = PodIndex::default();
        for name in ["a", "b"] {
            index.apply(&pod(name, &[]), images(&["nginx:1"]));
        }
        index.delete(&pod("a", &[]));
        assert_eq!(index.usage(NGINX).pods, ["shop/b"]);
        let changes = index.apply(&pod("b", &[]), Vec::new());
        assert!(changes.images.contains(NGINX) && index.image(NGINX).is_none());
        assert!(index.repositories.is_empty() && index.pods.is_empty() && index.images.is_empty());
    }

    #[test]
    fn list_removes_only_pods_missing_from_it() {
        let mut index = PodIndex::default();
        for name in ["a", "b"] {
            index.apply(&pod(name, &[]), images(&["nginx:1"]));
        }
        index.apply(&pod("c", &[]), images(&["redis:7"]));
        index.begin_list();
        for name in ["a", "b"] {
            assert_eq!(index.apply(&pod(name, &[]), images(&["nginx:1"])), Changes::default());
        }
        let changes = index.end_list();
        assert_eq!(
            changes.images.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            ["docker.io/library/redis:7"]
        );
        assert_eq!(index.usage(NGINX).count, 2);
    }

    #[test]
    fn secrets_combine_all_pods_and_service_accounts() {
        let mut index = PodIndex::default();
        index.apply(&pod("a", &["one"]), images(&["nginx:1"]));
        index.apply(&pod("b", &["two", "one"]), images(&["nginx:2"]));
        let nginx = &WantedImage::parse("nginx").unwrap().repository;
        assert_eq!(index.secrets(nginx).count(), 3);
        assert_eq!(index.repositories_of("shop", "robot"), std::slice::from_ref(nginx));
        let changes = index.delete(&pod("b", &[]));
        assert!(changes.repositories.contains(nginx));
        assert_eq!(index.secrets(nginx).count(), 2);
    }

    #[test]
    fn usage_caps_pod_names_but_not_the_count() {
        let mut index = PodIndex::default();
        for number in 0..90 {
            index.apply(&pod(&format!("p{number}"), &[]), images(&["nginx:1"]));
        }
        let usage = index.usage(NGINX);
        assert_eq!((usage.count, usage.pods.len()), (90, MAX_NAMED_PODS));
    }

    proptest! {
        /// After any updates, the index equals one built from the remaining pods.
        #[test]
        fn index_equals_one_built_from_scratch(steps in proptest::collection::vec((0..6_u8, 0..4_usize, 0..3_usize, any::<bool>()), 0..60)) {
            let mut index = PodIndex::default();
            let mut model = BTreeMap::new();
            for (name, image_count, secret_count, gone) in steps {
                let names = ["nginx:1", "redis:7", "nginx:2", "quay.io/a/b:1"];
                let pod = pod(&name.to_string(), &["x", "y", "z"][..secret_count]);
                let images = images(&names[usize::from(name) % 2..][..image_count.min(3)]);
                if gone {
                    index.delete(&pod);
                    model.remove(&name);
                } else {
                    index.apply(&pod, images.clone());
                    model.insert(name, (pod, images));
                }
            }
            let mut fresh = PodIndex::default();
            for (pod, images) in model.into_values() {
                fresh.apply(&pod, images);
            }
            let all = |index: &PodIndex| {
                let images: BTreeMap<_, _> = index.images.iter()
                    .map(|(key, entry)| (key.clone(), (entry.pods.clone(), entry.containers))).collect();
                let repositories: BTreeMap<_, _> = index.repositories.iter()
                    .map(|(key, entry)| (key.clone(), (entry.images.clone(), entry.secrets.clone()))).collect();
                (images, repositories, index.pods.len())
            };
            prop_assert_eq!(all(&index), all(&fresh));
        }
    }
}
