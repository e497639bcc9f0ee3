//! Takes images out of their repositories, where nobody has come for them meanwhile.
//!
//! Invariant: an image goes as a whole or not at all. That is decided while new leases on its manifests wait, by what is
//! then known: who has pushed or tagged it since before the inventory began, and what its marks say. A manifest that another
//! image needs stays for as long as that one does.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use kuik_core::{
    content::{Digest, Freshness, ManagedStore, SourceError, SourceErrorKind, TagOrDigest},
    reference::{RepositoryName, Tag},
};

use super::{
    choose::{Candidate, Standing},
    inventory::{Image, Inventory},
    mark::{self, Mark, Marks},
};
use crate::gc::{Key, Run, Until, or_gone};

/// Images that go, of those that an inventory has.
pub(super) struct Unlinking<'a> {
    store: &'a Arc<dyn ManagedStore>,
    inventory: &'a Inventory,
    /// It began before the inventory.
    run: &'a Run,
    /// Until when other processes expect it, where there are any.
    until: Option<&'a Until>,
    /// How many images need each manifest of a repository.
    needs: HashMap<(&'a RepositoryName, &'a Digest), usize>,
    gone: HashSet<Key>,
}

/// What is done to take one image out of its repository.
struct Leaving {
    repository: RepositoryName,
    top: Digest,
    /// These manifests go: those that no other image needs, the image's own first.
    manifests: Vec<Digest>,
    /// Where another image needs its own: it stays, and loses these tags.
    tags: Vec<Tag>,
}

impl<'a> Unlinking<'a> {
    pub(super) fn new(
        store: &'a Arc<dyn ManagedStore>,
        inventory: &'a Inventory,
        run: &'a Run,
        until: Option<&'a Until>,
    ) -> Self {
        let mut needs = HashMap::new();
        for image in &inventory.images {
            for digest in &image.manifests {
                *needs.entry((&image.repository, digest)).or_default() += 1;
            }
        }
        Self { store, inventory, run, until, needs, gone: HashSet::new() }
    }

    /// Everything that those were made of which have gone.
    pub(super) fn gone(self) -> HashSet<Key> {
        self.gone
    }

    /// Whether other processes still expect it.
    pub(super) fn counts(&self) -> bool {
        self.until.is_none_or(Until::counts)
    }

    /// Takes the image at `place` out of its repository; says which one, where it has gone.
    pub(super) async fn unlink(
        &mut self,
        place: usize,
    ) -> Result<Option<(&'a Image, &'a Candidate)>, SourceError> {
        let inventory = self.inventory;
        let (Some(image), Some(candidate)) = (inventory.images.get(place), inventory.candidates.get(place))
        else {
            return Ok(None);
        };
        let leaving = self.leaving(image);
        let excluded: HashSet<_> =
            [&image.top].into_iter().chain(&leaving.manifests).map(Key::from).collect();
        // In this order: a writer who has not come yet waits until this is over.
        let removals: Option<Vec<_>> = excluded.iter().map(|key| self.run.remove(*key)).collect();
        let Some(removals) = removals else { return Ok(None) };
        let keys: Vec<_> = image.manifests.iter().map(Key::from).collect();
        if self.run.has_written(&keys) || !self.stands(image, candidate.standing).await? {
            return Ok(None);
        }
        let (store, until) = (self.store.clone(), self.until.cloned());
        // Work that has begun does not stop, and nobody may get a lease before it is done.
        let work = tokio::spawn(async move {
            let _removals = removals;
            leaving.leave(store.as_ref(), until.as_ref()).await
        });
        let left = work.await.unwrap_or_else(|error| {
            let attempted = "take an image out of its repository: its task ended early";
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

    fn leaving(&self, image: &Image) -> Leaving {
        let is_alone =
            |digest: &&Digest| self.needs.get(&(&image.repository, *digest)).is_none_or(|count| *count <= 1);
        let stays = !is_alone(&&image.top);
        Leaving {
            repository: image.repository.clone(),
            top: image.top.clone(),
            manifests: image.manifests.iter().filter(is_alone).cloned().collect(),
            tags: if stays { image.tags.clone() } else { Vec::new() },
        }
    }

    /// Whether its marks say now what they said to the inventory.
    async fn stands(&self, image: &Image, standing: Standing) -> Result<bool, SourceError> {
        let tags = image.tags.iter().cloned().map(TagOrDigest::Tag);
        let names = tags.chain(image.manifests.iter().cloned().map(TagOrDigest::Digest));
        let mut marks: Vec<Mark> = Vec::new();
        // What is no name of a note has no mark.
        for name in names.filter_map(|name| mark::note_name(&name).ok()) {
            marks.extend(Marks(self.store.as_ref()).counted(&image.repository, &name).await?);
        }
        Ok(mark::standing(marks, SystemTime::now()) == standing)
    }
}

impl Leaving {
    /// Whether it has left. Where others stop to expect it half-way, the image has gone, and some of its parts have become
    /// images of their own.
    async fn leave(&self, store: &dyn ManagedStore, until: Option<&Until>) -> Result<bool, SourceError> {
        let counts = || until.is_none_or(Until::counts);
        for tag in &self.tags {
            // It may point elsewhere by now.
            let at = TagOrDigest::Tag(tag.clone());
            match store.resolve(&self.repository, &at, Freshness::Cached).await {
                Ok(found) if found.content.digest == self.top => {}
                Ok(_) => continue,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            }
            if !counts() {
                return Ok(false);
            }
            or_gone(store.delete_tag(&self.repository, tag).await)?;
        }
        for (place, digest) in self.manifests.iter().enumerate() {
            if !counts() {
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
