//! Removal of images from their repositories, unless they were used meanwhile.
//!
//! Invariant: an image is removed as a whole or not at all. That is decided while new leases on its manifests wait,
//! by the state at that time: pushes, tags and pulls since before the inventory began, and what clusters say about it.
//! A manifest that another image needs is kept for as long as that image.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kuik_core::{
    content::{Digest, Freshness, RegistryStore, SourceError, SourceErrorKind, TagOrDigest},
    reference::{RepositoryName, Tag},
};

use super::{
    Pulls,
    eviction_order::{Candidate, Rank},
    inventory::{Image, Inventory},
};
use crate::maintenance::{
    gc::{Deadline, Key, Run, or_gone},
    retention::RetentionIndex,
};

/// Images to remove, out of an inventory.
pub(super) struct Unlinking<'a> {
    store: &'a Arc<dyn RegistryStore>,
    uses: Uses<'a>,
    inventory: &'a Inventory,
    /// It began before the inventory.
    run: &'a Run,
    /// Until when other processes expect it, if there are any.
    deadline: Option<&'a Deadline>,
    /// Number of images that need each manifest of a repository.
    needs: HashMap<(&'a RepositoryName, &'a Digest), usize>,
    gone: HashSet<Key>,
}

/// Knowledge about the use of images.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uses<'a> {
    pub retention: &'a RetentionIndex,
    /// Flushed before the inventory, so that it has pulls since then.
    pub pulls: &'a Pulls,
}

/// Steps to remove one image from its repository.
struct Removals {
    repository: RepositoryName,
    top: Digest,
    /// Manifests to remove: those that no other image needs, the image's own first.
    manifests: Vec<Digest>,
    /// Tags to remove if another image needs the image's own manifest, which is then kept.
    tags: Vec<Tag>,
}

impl<'a> Unlinking<'a> {
    pub(super) fn new(
        store: &'a Arc<dyn RegistryStore>,
        uses: Uses<'a>,
        inventory: &'a Inventory,
        run: &'a Run,
        deadline: Option<&'a Deadline>,
    ) -> Self {
        let mut needs = HashMap::new();
        for image in &inventory.images {
            for digest in &image.manifests {
                *needs.entry((&image.repository, digest)).or_default() += 1;
            }
        }
        Self { store, uses, inventory, run, deadline, needs, gone: HashSet::new() }
    }

    /// Returns the content of the removed images.
    pub(super) fn gone(self) -> HashSet<Key> {
        self.gone
    }

    /// Returns whether other processes still expect it.
    pub(super) fn is_valid(&self) -> bool {
        self.deadline.is_none_or(Deadline::is_valid)
    }

    /// Removes the image at `place` from its repository; returns it if it was removed.
    pub(super) async fn unlink(
        &mut self,
        place: usize,
    ) -> Result<Option<(&'a Image, &'a Candidate)>, SourceError> {
        let inventory = self.inventory;
        let (Some(image), Some(candidate)) = (inventory.images.get(place), inventory.candidates.get(place))
        else {
            return Ok(None);
        };
        let steps = self.steps(image);
        let excluded: HashSet<_> = [&image.top].into_iter().chain(&steps.manifests).map(Key::from).collect();
        // In this order: a writer that has no lease yet waits until this is over.
        let removals: Option<Vec<_>> = excluded.iter().map(|key| self.run.remove(*key)).collect();
        let Some(removals) = removals else { return Ok(None) };
        let keys: Vec<_> = image.manifests.iter().map(Key::from).collect();
        if self.run.has_written(&keys) || !self.is_unchanged(image, candidate) {
            return Ok(None);
        }
        let (store, deadline) = (self.store.clone(), self.deadline.cloned());
        // Started work does not stop, and no lease may be granted before it is done.
        let work = tokio::spawn(async move {
            let _removals = removals;
            steps.run(store.as_ref(), deadline.as_ref()).await
        });
        let left = work.await.unwrap_or_else(|error| {
            let attempted = "remove an image from its repository: its task ended early";
            Err(SourceError::caused_by(SourceErrorKind::Storage, attempted, error))
        })?;
        if !left {
            return Ok(None);
        }
        for digest in &image.manifests {
            if let Some(count) = self.needs.get_mut(&(&image.repository, digest)) {
                *count = count.saturating_sub(1);
            }
        }
        self.gone.extend(candidate.members.iter().filter_map(|id| inventory.key(*id)));
        Ok(Some((image, candidate)))
    }

    fn steps(&self, image: &Image) -> Removals {
        let is_alone =
            |digest: &&Digest| self.needs.get(&(&image.repository, *digest)).is_none_or(|count| *count <= 1);
        let stays = !is_alone(&&image.top);
        Removals {
            repository: image.repository.clone(),
            top: image.top.clone(),
            manifests: image.manifests.iter().filter(is_alone).cloned().collect(),
            tags: if stays { image.tags.clone() } else { Vec::new() },
        }
    }

    /// Returns whether an image is as unneeded as in the inventory.
    fn is_unchanged(&self, image: &Image, candidate: &Candidate) -> bool {
        let Uses { retention, pulls } = self.uses;
        let rank = Rank::of(image.standing(retention), candidate.last_pulled, retention.now());
        rank <= candidate.rank && !pulls.has_any(&image.repository, &image.manifests)
    }
}

impl Removals {
    /// Removes the image; returns whether it did. If the deadline passes half-way, the image is gone, and some of its
    /// parts have become images of their own.
    async fn run(&self, store: &dyn RegistryStore, deadline: Option<&Deadline>) -> Result<bool, SourceError> {
        let is_valid = || deadline.is_none_or(Deadline::is_valid);
        for tag in &self.tags {
            // It may have been moved.
            let at = TagOrDigest::Tag(tag.clone());
            match store.resolve(&self.repository, &at, Freshness::Cached).await {
                Ok(found) if found.content.digest == self.top => {}
                Ok(_) => continue,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            }
            if !is_valid() {
                return Ok(false);
            }
            or_gone(store.delete_tag(&self.repository, tag).await)?;
        }
        for (place, digest) in self.manifests.iter().enumerate() {
            if !is_valid() {
                return Ok(place > 0);
            }
            or_gone(store.delete_manifest(&self.repository, digest).await)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
#[path = "unlink_tests.rs"]
mod tests;
