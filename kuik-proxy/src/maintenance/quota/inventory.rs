//! Inventory of the images of a store, with their content and retention.
//!
//! An image is a manifest that is not just a part of another one in its repository: one with a tag, or one that no
//! index lists and that has no subject there. An index includes its manifests; every image includes the content of
//! its manifests and its referrers.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::SystemTime,
};

use futures::TryStreamExt as _;
use kuik_core::{
    content::{Digest, Freshness, RegistryStore, SourceError, SourceErrorKind, TagOrDigest, TagPage},
    reference::{RepositoryName, Tag},
};

use super::{
    eviction_order::{Candidate, Rank},
    pulls::{self, LastPulls},
};
use crate::maintenance::{
    gc::{Key, children},
    retention::{RetentionIndex, Standing},
};

/// Number of tags read between two walks through a repository's directory of tags.
const TAGS_AT_ONCE: usize = 10_000;

/// All images of a store.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub images: Vec<Image>,
    /// Eviction data of each image, in the same order.
    pub candidates: Vec<Candidate>,
    /// Stored size of each member in bytes; members are indexes into this list.
    pub sizes: Vec<u64>,
    ids: HashMap<Key, u32>,
    keys: Vec<Key>,
    modified: HashMap<Key, SystemTime>,
}

/// Image in its repository.
#[derive(Debug)]
pub(super) struct Image {
    pub repository: RepositoryName,
    pub top: Digest,
    pub tags: Vec<Tag>,
    /// Manifests of the repository that belong to it, itself first.
    pub manifests: Vec<Digest>,
    /// Names of the image to which its tags refer as a signature or another referrer: it is needed like that one.
    subjects: Vec<String>,
}

/// Content of one repository.
#[derive(Debug, Default)]
struct Repository {
    tags: HashMap<Digest, Vec<Tag>>,
    /// References of each manifest.
    needs: HashMap<Digest, Vec<Digest>>,
    /// Referrers of manifests.
    referrers: HashMap<Digest, Vec<Digest>>,
    /// Manifests that are listed by another one, or refer to one.
    parts: HashSet<Digest>,
    pulls: LastPulls,
    /// Whether a manifest is unreadable, so that its references are unknown.
    is_damaged: bool,
}

impl Inventory {
    /// Reads the inventory of `store`, whose images stand as `retention` says. An image with content written after
    /// `written_before` counts as kept, because its eviction would not free that content. So does an image in a
    /// repository with an unreadable manifest: it may be a part of it, and the collector keeps the whole repository.
    pub(super) async fn take(
        store: &dyn RegistryStore,
        retention: &RetentionIndex,
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
        let mut repositories = store.repositories();
        while let Some(name) = repositories.try_next().await? {
            let repository = Repository::read(store, &name).await?;
            inventory.add(&name, &repository, retention, written_before);
        }
        Ok(inventory)
    }

    /// Returns the indexes in this inventory of the images at `places` in an earlier one, if they have not become more
    /// needed since, nor were pulled.
    pub(super) fn again(&self, earlier: &Self, places: &[usize]) -> Vec<usize> {
        let order = |candidate: &Candidate| (candidate.rank, candidate.last_pulled);
        let before = places.iter().filter_map(|place| {
            let (image, candidate) = (earlier.images.get(*place)?, earlier.candidates.get(*place)?);
            Some(((&image.repository, &image.top), order(candidate)))
        });
        let before: HashMap<_, _> = before.collect();
        let may_go = |(image, candidate): (&Image, &Candidate)| {
            let before = before.get(&(&image.repository, &image.top));
            candidate.rank != Rank::Kept && before.is_some_and(|before| order(candidate) <= *before)
        };
        let images = self.images.iter().zip(&self.candidates).enumerate();
        images.filter(|(_, image)| may_go(*image)).map(|(place, _)| place).collect()
    }

    /// Returns the digest of the member `id`.
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
        retention: &RetentionIndex,
        written_before: SystemTime,
    ) {
        let now = retention.now();
        for top in repository.needs.keys() {
            let tags = repository.tags.get(top).cloned().unwrap_or_default();
            if tags.is_empty() && repository.parts.contains(top) {
                continue;
            }
            let (manifests, blobs) = repository.closure(top);
            let mut written =
                manifests.iter().chain(&blobs).filter_map(|digest| self.modified.get(&Key::from(digest)));
            let is_settled = written.all(|written| *written < written_before) && !repository.is_damaged;
            let written = self.modified.get(&Key::from(top)).copied();
            let pulls = manifests.iter().filter_map(|digest| repository.pulls.get(digest));
            let last_pulled = pulls.map(|minute| pulls::time(*minute)).chain(written).max();
            let last_pulled = last_pulled.unwrap_or(SystemTime::UNIX_EPOCH);
            let subjects = tags.iter().filter_map(tagged_subject);
            let subjects = subjects.flat_map(|subject| repository.names(&subject)).collect();
            let image = Image { repository: name.clone(), top: top.clone(), tags, manifests, subjects };
            let standing = if is_settled { image.standing(retention) } else { Standing::Needed };
            let members: BTreeSet<u32> =
                image.manifests.iter().chain(&blobs).map(|digest| self.id(digest)).collect();
            self.candidates.push(Candidate {
                members: members.into_iter().collect(),
                rank: Rank::of(standing, last_pulled, now),
                last_pulled,
            });
            self.images.push(image);
        }
    }
}

impl Image {
    /// Returns the image's standing, by all its tags and manifests, and by those of the image that it refers to.
    pub(super) fn standing(&self, retention: &RetentionIndex) -> Standing {
        let names = self.tags.iter().map(Tag::as_str).chain(self.manifests.iter().map(Digest::as_str));
        retention.standing(&self.repository, names.chain(self.subjects.iter().map(String::as_str)))
    }
}

impl Repository {
    async fn read(store: &dyn RegistryStore, name: &RepositoryName) -> Result<Self, SourceError> {
        let mut repository = Self {
            pulls: pulls::stored(store, name).await?,
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

    /// Returns the names of a manifest: its digest and its tags.
    fn names(&self, digest: &Digest) -> Vec<String> {
        let tags = self.tags.get(digest).into_iter().flatten().map(|tag| tag.as_str().to_owned());
        tags.chain([digest.as_str().to_owned()]).collect()
    }

    /// Returns the manifests of the repository that belong to `top`, itself first, and all other content they need.
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

/// Returns the digest to which a tag refers: `sha256-…` is the referrers tag of `sha256:…` (OCI distribution
/// specification, "Referrers Tag Schema"), and cosign appends `.sig` and the like.
fn tagged_subject(tag: &Tag) -> Option<Digest> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let encoded = rest.split('.').next()?;
    format!("{algorithm}:{encoded}").parse().ok().filter(|digest: &Digest| digest.algorithm().is_some())
}

/// Returns the tags of a repository by target.
async fn tags(
    store: &dyn RegistryStore,
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

fn is_unreadable(error: &SourceError) -> bool {
    matches!(error.kind(), SourceErrorKind::NotFound | SourceErrorKind::InvalidContent)
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
pub(super) mod tests;
