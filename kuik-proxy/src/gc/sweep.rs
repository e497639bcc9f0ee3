//! Removing what is not reachable.
//!
//! Invariant: manifests leave their repositories top-down and before any bytes go; each removal is decided while new
//! leases on its digest wait. See the module for why that is enough.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use futures::TryStreamExt as _;
use kuik_core::{
    content::{Digest, ManagedStore, SourceError, StoredBlob},
    reference::RepositoryName,
};

use super::{
    GcOptions, GcReport,
    announced::Until,
    graph::{Graph, Key, Place, Reachable},
    leases::{Removal, Run},
    underway::{Underway, or_gone},
};

/// What is old enough to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Old<'a> {
    /// What was written before this,
    pub before: SystemTime,
    /// and of these what was written before that.
    pub also: Option<(&'a HashSet<Key>, SystemTime)>,
}

impl Old<'_> {
    fn is(&self, blob: &StoredBlob, key: Key) -> bool {
        let also = |(keys, before): (&HashSet<Key>, _)| blob.modified < before && keys.contains(&key);
        blob.modified < self.before || self.also.is_some_and(also)
    }
}

/// What may go where other processes use the store: what they have been told of, as long as that counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removable<'a> {
    pub keys: &'a HashSet<Key>,
    pub until: &'a Until,
}

/// What would go.
pub(super) struct Candidates {
    pub digests: Vec<Digest>,
    /// Whether that is all.
    pub are_all: bool,
    pub report: GcReport,
}

/// The second half of a run.
pub(super) struct Sweep<'a, F> {
    store: &'a Arc<dyn ManagedStore>,
    run: &'a Run,
    graph: &'a Graph,
    options: &'a GcOptions,
    old: Old<'a>,
    announced: Option<Removable<'a>>,
    spared: Reachable,
    report: GcReport,
    unlinked: u64,
    gone: F,
}

impl<'a, F: FnMut(&StoredBlob) + Send> Sweep<'a, F> {
    pub(super) fn new(
        store: &'a Arc<dyn ManagedStore>,
        run: &'a Run,
        graph: &'a Graph,
        options: &'a GcOptions,
        old: Old<'a>,
        gone: F,
    ) -> Self {
        let mut spared = graph.reachable();
        graph.extend(&mut spared, run.all_noted());
        let report = GcReport { marked: spared.len() as u64, ..GcReport::default() };
        Self { store, run, graph, options, old, announced: None, spared, report, unlinked: 0, gone }
    }

    /// The same over what other processes have been told of alone.
    pub(super) fn announced(self, removable: Removable<'a>) -> Self {
        Self { announced: Some(removable), ..self }
    }

    pub(super) fn report(&self) -> GcReport {
        self.report
    }

    /// Whether anything went.
    pub(super) fn went_on(&self) -> bool {
        self.report.removed + self.unlinked > 0
    }

    pub(super) async fn run(&mut self) -> Result<(), SourceError> {
        if self.options.delete_untagged && !self.options.dry_run {
            self.manifests().await?;
        }
        let present = self.bytes(|_| {}).await?;
        if self.options.dry_run { Ok(()) } else { self.links(&present).await }
    }

    /// What would go now, about `most` of it: bytes, and what is linked without having any. Nothing is removed by a dry
    /// run.
    ///
    /// Of what is kept by something that would go, that is among them too: the one does not go without the other.
    pub(super) async fn candidates(mut self, most: usize) -> Result<Candidates, SourceError> {
        let mut garbage = Vec::new();
        let present = self.bytes(|digest| garbage.push(digest.clone())).await?;
        let order = self.graph.top_down();
        let place = |digest: &Digest| order.get(&Key::from(digest)).copied();
        garbage.sort_by_cached_key(place);
        let circles =
            garbage.chunk_by(|one, other| one == other || place(one).is_some() && place(one) == place(other));
        let mut candidates: Vec<Digest> = Vec::new();
        for circle in circles {
            if !candidates.is_empty() && candidates.len() + circle.len() > most {
                return Ok(Candidates { digests: candidates, are_all: false, report: self.report });
            }
            candidates.extend_from_slice(circle);
        }
        let mut seen: HashSet<Key> = candidates.iter().map(Key::from).collect();
        let mut repositories = self.store.repositories();
        while let Some(repository) = repositories.try_next().await? {
            let mut links = self.store.linked_blobs(&repository);
            while let Some(digest) = links.try_next().await? {
                let key = Key::from(&digest);
                if present.contains(&key) || !seen.insert(key) {
                    continue;
                }
                if candidates.len() >= most {
                    return Ok(Candidates { digests: candidates, are_all: false, report: self.report });
                }
                candidates.push(digest);
            }
        }
        Ok(Candidates { digests: candidates, are_all: true, report: self.report })
    }

    fn may_go(&self, key: Key) -> bool {
        let told = |told: Removable<'_>| told.keys.contains(&key) && told.until.counts();
        self.announced.is_none_or(told)
    }

    /// Begins to remove something, where it is neither reachable nor leased.
    fn removal(&mut self, key: Key) -> Option<Vec<Removal>> {
        self.removals(&HashSet::from([key]))
    }

    /// Begins to remove things that go together, where none of them is reachable or leased.
    fn removals(&mut self, keys: &HashSet<Key>) -> Option<Vec<Removal>> {
        if !keys.iter().all(|key| self.may_go(*key)) {
            return None;
        }
        // In this order: a lease that this does not see yet waits until the removal is over.
        let removals = keys.iter().map(|key| self.run.remove(*key)).collect::<Option<_>>()?;
        self.graph.extend(&mut self.spared, self.run.noted());
        keys.iter().all(|key| !self.spared.contains(*key)).then_some(removals)
    }

    /// Takes untagged manifests out of their repositories.
    async fn manifests(&mut self) -> Result<(), SourceError> {
        let order = self.graph.top_down();
        let mut garbage: Vec<(Place, RepositoryName, Digest)> = Vec::new();
        let mut repositories = self.store.repositories();
        while let Some(repository) = repositories.try_next().await? {
            let mut manifests = self.store.manifests(&repository);
            while let Some(digest) = manifests.try_next().await? {
                let key = Key::from(&digest);
                // What is not in the graph came during the run.
                if let Some(&place) = order.get(&key).filter(|_| !self.spared.contains(key)) {
                    garbage.push((place, repository.clone(), digest));
                }
            }
        }
        garbage.sort_unstable_by_key(|(place, ..)| *place);
        for level in garbage.chunk_by(|(one, ..), (other, ..)| one.level == other.level) {
            self.level(level).await?;
        }
        Ok(())
    }

    /// The same with those of one level: none of them is kept by another one, but for those in a circle.
    async fn level(&mut self, level: &[(Place, RepositoryName, Digest)]) -> Result<(), SourceError> {
        let mut underway = Underway::default();
        // Those that keep one another go together: whoever finds one of them finds all.
        for circle in level.chunk_by(|(one, ..), (other, ..)| one == other) {
            let keys = circle.iter().map(|(_, _, digest)| Key::from(digest)).collect();
            let Some(removals) = self.removals(&keys) else { continue };
            let (store, circle) = (self.store.clone(), circle.to_vec());
            let delete = async move {
                for (_, repository, digest) in circle {
                    or_gone(store.delete_manifest(&repository, &digest).await)?;
                }
                Ok(())
            };
            underway.begin((), removals, delete).await?;
        }
        underway.end().await.map(drop)
    }

    /// Removes bytes; returns what stays.
    async fn bytes(&mut self, mut going: impl FnMut(&Digest) + Send) -> Result<HashSet<Key>, SourceError> {
        let mut present = HashSet::new();
        let mut underway = Underway::default();
        let mut blobs = self.store.blobs();
        while let Some(blob) = blobs.try_next().await? {
            let key = Key::from(&blob.digest);
            let garbage = self.old.is(&blob, key) && !self.spared.contains(key);
            let removal = if garbage { self.removal(key) } else { None };
            let Some(removal) = removal else {
                present.insert(key);
                self.report.kept += 1;
                continue;
            };
            going(&blob.digest);
            let (store, digest) = (self.store.clone(), blob.digest.clone());
            let removed = if self.options.dry_run {
                Some(blob)
            } else {
                underway.begin(blob, removal, async move { store.remove_blob(&digest).await }).await?
            };
            removed.iter().for_each(|blob| self.went(blob));
        }
        underway.end().await?.iter().for_each(|blob| self.went(blob));
        Ok(present)
    }

    fn went(&mut self, blob: &StoredBlob) {
        self.report.removed += 1;
        self.report.reclaimed_bytes += blob.size;
        (self.gone)(blob);
    }

    /// Removes links to bytes that are gone, in this run or in one that was interrupted.
    async fn links(&mut self, present: &HashSet<Key>) -> Result<(), SourceError> {
        let mut repositories = self.store.repositories();
        while let Some(repository) = repositories.try_next().await? {
            let mut underway = Underway::default();
            let mut links = self.store.linked_blobs(&repository);
            while let Some(digest) = links.try_next().await? {
                let key = Key::from(&digest);
                if present.contains(&key) || !self.may_go(key) {
                    continue;
                }
                let Some(removal) = self.run.remove(key) else { continue };
                let (store, repository) = (self.store.clone(), repository.clone());
                let unlink = async move {
                    // It may have come since the walk over all bytes.
                    match store.has_blob(&digest).await? {
                        Some(_) => Ok(()),
                        None => store.unlink_blob(&repository, &digest).await,
                    }
                };
                underway.begin((), vec![removal], unlink).await?;
                self.unlinked += 1;
            }
            // Before the next repository, which may have links to the same bytes.
            underway.end().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
