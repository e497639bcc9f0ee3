//! What images a store has, what they are made of, and what is known about each.
//!
//! An image is a manifest that is not merely a part of another one of its repository: one with a tag, or one that no
//! index names and that refers to no subject there. With it go the manifests of an index, what its manifests need,
//! and its referrers.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::SystemTime,
};

use futures::TryStreamExt as _;
use kuik_core::{
    content::{Digest, Freshness, ManagedStore, SourceError, SourceErrorKind, TagOrDigest, TagPage},
    reference::{RepositoryName, Tag},
};

use super::{
    choose::{Candidate, Standing},
    mark::{self, Mark, Marks},
    pulls::{self, LastPulls},
};
use crate::gc::{Key, children};

/// How many tags are looked at between two walks through a repository's directory of tags.
const TAGS_AT_ONCE: usize = 10_000;

/// All images of a store.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub images: Vec<Image>,
    /// What decides about each of them, in the same order.
    pub candidates: Vec<Candidate>,
    /// How many bytes each member has here; members are places in this list.
    pub sizes: Vec<u64>,
    ids: HashMap<Key, u32>,
    keys: Vec<Key>,
    modified: HashMap<Key, SystemTime>,
}

/// An image in its repository.
#[derive(Debug)]
pub(super) struct Image {
    pub repository: RepositoryName,
    pub top: Digest,
    pub tags: Vec<Tag>,
    /// The manifests of the repository that belong to it, itself the first.
    pub manifests: Vec<Digest>,
}

/// What one repository has.
#[derive(Debug, Default)]
struct Repository {
    tags: HashMap<Digest, Vec<Tag>>,
    /// The manifests, with what each needs.
    needs: HashMap<Digest, Vec<Digest>>,
    /// The referrers of manifests.
    referrers: HashMap<Digest, Vec<Digest>>,
    /// What is a part of another manifest, or refers to one.
    parts: HashSet<Digest>,
    marks: HashMap<String, Mark>,
    pulls: LastPulls,
    /// Whether some manifest cannot be read: nobody knows what it needs.
    is_damaged: bool,
}

impl Inventory {
    /// Everything that `store` has at `now`. An image of which not all was written before `written_before` counts as
    /// pinned: it would not give back what it has. So does one of a repository where a manifest cannot be read: it may be a
    /// part of that, and the collector keeps all that the repository has.
    pub(super) async fn take(
        store: &dyn ManagedStore,
        now: SystemTime,
        written_before: SystemTime,
    ) -> Result<Self, SourceError> {
        let mut inventory = Self::default();
        let mut blobs = store.blobs();
        while let Some(blob) = blobs.try_next().await? {
            let id = inventory.id(&blob.digest);
            if let Some(size) = inventory.sizes.get_mut(id as usize) {
                *size = blob.size;
            }
            inventory.modified.insert(Key::from(&blob.digest), blob.modified);
        }
        let mut marks = all_marks(store).await?;
        let mut repositories = store.repositories();
        while let Some(name) = repositories.try_next().await? {
            let marks = marks.remove(&encoded(&name)).unwrap_or_default();
            let repository = Repository::read(store, &name, marks).await?;
            inventory.add(&name, &repository, now, written_before);
        }
        Ok(inventory)
    }

    /// Where the images at `places` of an earlier inventory are in this one, those that may still go.
    pub(super) fn again(&self, earlier: &Self, places: &[usize]) -> Vec<usize> {
        let chosen = places.iter().filter_map(|place| earlier.images.get(*place));
        let chosen: HashSet<_> = chosen.map(|image| (&image.repository, &image.top)).collect();
        let may_go = |place: &usize| {
            self.candidates.get(*place).is_some_and(|candidate| candidate.standing != Standing::Pinned)
        };
        let images = self.images.iter().enumerate();
        let found = images.filter(|(_, image)| chosen.contains(&(&image.repository, &image.top)));
        found.map(|(place, _)| place).filter(may_go).collect()
    }

    /// The digests that the member `id` stands for.
    pub(super) fn key(&self, id: u32) -> Option<Key> {
        self.keys.get(id as usize).copied()
    }

    fn id(&mut self, digest: &Digest) -> u32 {
        let key = Key::from(digest);
        let next = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        *self.ids.entry(key).or_insert_with(|| {
            self.keys.push(key);
            self.sizes.push(0);
            next
        })
    }

    fn add(
        &mut self,
        name: &RepositoryName,
        repository: &Repository,
        now: SystemTime,
        written_before: SystemTime,
    ) {
        for top in repository.needs.keys() {
            let tags = repository.tags.get(top).cloned().unwrap_or_default();
            if tags.is_empty() && repository.parts.contains(top) {
                continue;
            }
            let (manifests, blobs) = repository.closure(top);
            let marks = manifests.iter().filter_map(|digest| repository.marks.get(digest.as_str()));
            let marks = marks.chain(tags.iter().filter_map(|tag| repository.marks.get(tag.as_str())));
            let mut written =
                manifests.iter().chain(&blobs).filter_map(|digest| self.modified.get(&Key::from(digest)));
            let standing = match written.all(|written| *written < written_before) && !repository.is_damaged {
                true => mark::standing(marks.copied(), now),
                false => Standing::Pinned,
            };
            let written = self.modified.get(&Key::from(top)).copied();
            let pulls = manifests.iter().filter_map(|digest| repository.pulls.get(digest));
            let last_pulled = pulls.map(|minute| pulls::time(*minute)).chain(written).max();
            let members: BTreeSet<u32> =
                manifests.iter().chain(&blobs).map(|digest| self.id(digest)).collect();
            self.candidates.push(Candidate {
                members: members.into_iter().collect(),
                standing,
                last_pulled: last_pulled.unwrap_or(SystemTime::UNIX_EPOCH),
            });
            self.images.push(Image { repository: name.clone(), top: top.clone(), tags, manifests });
        }
    }
}

impl Repository {
    async fn read(
        store: &dyn ManagedStore,
        name: &RepositoryName,
        marks: HashMap<String, Mark>,
    ) -> Result<Self, SourceError> {
        let mut repository = Self {
            marks,
            pulls: pulls::noted(store, name).await?,
            tags: tags(store, name).await?,
            ..Self::default()
        };
        let mut manifests = store.manifests(name);
        while let Some(digest) = manifests.try_next().await? {
            let at = TagOrDigest::Digest(digest.clone());
            let manifest = match store.manifest(name, &at, Freshness::Cached).await {
                Ok(manifest) => manifest.content,
                Err(error) if is_unreadable(&error) => {
                    repository.is_damaged = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let needs = children(&manifest);
            repository.parts.extend(needs.iter().cloned());
            if let Some(subject) = manifest.subject() {
                repository.parts.insert(digest.clone());
                repository.referrers.entry(subject).or_default().push(digest.clone());
            }
            repository.needs.insert(digest, needs);
        }
        Ok(repository)
    }

    /// The manifests of the repository that belong to `top`, itself the first, and everything else that they need.
    fn closure(&self, top: &Digest) -> (Vec<Digest>, Vec<Digest>) {
        let (mut manifests, mut others) = (vec![top.clone()], Vec::new());
        let mut seen = HashSet::from([top.clone()]);
        let mut next = 0;
        while let Some(manifest) = manifests.get(next).cloned() {
            next += 1;
            let needs = self.needs.get(&manifest).into_iter().flatten();
            for digest in needs.chain(self.referrers.get(&manifest).into_iter().flatten()) {
                if seen.insert(digest.clone()) {
                    let kind = if self.needs.contains_key(digest) { &mut manifests } else { &mut others };
                    kind.push(digest.clone());
                }
            }
        }
        (manifests, others)
    }
}

/// The tags of a repository by what they point at.
async fn tags(
    store: &dyn ManagedStore,
    repository: &RepositoryName,
) -> Result<HashMap<Digest, Vec<Tag>>, SourceError> {
    let mut tags: HashMap<Digest, Vec<Tag>> = HashMap::new();
    let mut page = TagPage { limit: Some(TAGS_AT_ONCE), after: None };
    loop {
        let list = match store.tags(repository, &page).await {
            Err(error) if error.kind() == SourceErrorKind::NotFound => return Ok(tags),
            list => list?,
        };
        for text in &list.tags {
            let Ok(tag) = text.parse::<Tag>() else { continue };
            match store.resolve(repository, &TagOrDigest::Tag(tag.clone()), Freshness::Cached).await {
                Ok(found) => tags.entry(found.content.digest).or_default().push(tag),
                Err(error) if is_unreadable(&error) => {}
                Err(error) => return Err(error),
            }
        }
        page.after = list.tags.last().cloned();
        if !list.more || page.after.is_none() {
            return Ok(tags);
        }
    }
}

/// All marks, by repository and then by what they are on.
async fn all_marks(store: &dyn ManagedStore) -> Result<HashMap<String, HashMap<String, Mark>>, SourceError> {
    let mut all: HashMap<String, HashMap<String, Mark>> = HashMap::new();
    let mut notes = store.notes();
    while let Some((repository, name)) = notes.try_next().await? {
        let Some(marked) = mark::marked(&name) else { continue };
        let Some(mark) = Marks(store).counted(&repository, &name).await? else { continue };
        all.entry(encoded(&repository)).or_default().insert(marked.to_owned(), mark);
    }
    Ok(all)
}

fn encoded(repository: &RepositoryName) -> String {
    repository.encoded().unwrap_or_default()
}

fn is_unreadable(error: &SourceError) -> bool {
    matches!(error.kind(), SourceErrorKind::NotFound | SourceErrorKind::InvalidContent)
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
pub(super) mod tests;
