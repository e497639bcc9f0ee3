//! Sweep phase: removal of unreachable content.
//!
//! Invariant: manifests are removed from their repositories top-down and before any bytes; each removal is decided
//! while new leases on its digest wait. The parent module explains why that is enough.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use futures::TryStreamExt as _;
use kuik_core::{
    content::{Digest, RegistryStore, SourceError, StoredBlob},
    reference::RepositoryName,
};

use super::{
    GcOptions, GcReport,
    concurrent_deletes::{ConcurrentDeletes, or_gone},
    graph::{Graph, Key, Rank, Reachable},
    leases::{Removal, Run},
    removal_intent::Deadline,
};

/// Selects content that is old enough to remove.
#[derive(Debug, Clone, Copy)]
pub(super) struct AgeFilter<'a> {
    /// Everything written before this time,
    pub before: SystemTime,
    /// and those of these digests that were written before that time.
    pub also: Option<(&'a HashSet<Key>, SystemTime)>,
}

impl AgeFilter<'_> {
    fn is(&self, blob: &StoredBlob, key: Key) -> bool {
        let also = |(keys, before): (&HashSet<Key>, _)| blob.modified < before && keys.contains(&key);
        blob.modified < self.before || self.also.is_some_and(also)
    }
}

/// Digests that may be removed from a shared store: those announced, until the deadline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removable<'a> {
    pub keys: &'a HashSet<Key>,
    pub deadline: &'a Deadline,
}

/// Digests that would be removed.
pub(super) struct Candidates {
    pub digests: Vec<Digest>,
    /// Whether these are all.
    pub complete: bool,
    pub report: GcReport,
}

/// Second half of a run.
pub(super) struct Sweep<'a, F> {
    store: &'a Arc<dyn RegistryStore>,
    run: &'a Run,
    graph: &'a Graph,
    options: &'a GcOptions,
    old: AgeFilter<'a>,
    announced: Option<Removable<'a>>,
    reachable: Reachable,
    report: GcReport,
    unlinked: u64,
    gone: F,
}

impl<'a, F: FnMut(&StoredBlob) + Send> Sweep<'a, F> {
    pub(super) fn new(
        store: &'a Arc<dyn RegistryStore>,
        run: &'a Run,
        graph: &'a Graph,
        options: &'a GcOptions,
        old: AgeFilter<'a>,
        gone: F,
    ) -> Self {
        let mut reachable = graph.reachable();
        graph.extend(&mut reachable, run.all_noted());
        let report = GcReport { marked: reachable.len() as u64, ..GcReport::default() };
        Self { store, run, graph, options, old, announced: None, reachable, report, unlinked: 0, gone }
    }

    /// Restricts the sweep to announced digests.
    pub(super) fn announced(self, removable: Removable<'a>) -> Self {
        Self { announced: Some(removable), ..self }
    }

    pub(super) fn report(&self) -> GcReport {
        self.report
    }

    /// Returns whether anything was removed.
    pub(super) fn removed_any(&self) -> bool {
        self.report.removed + self.unlinked > 0
    }

    pub(super) async fn run(&mut self) -> Result<(), SourceError> {
        if self.options.delete_untagged && !self.options.dry_run {
            self.manifests().await?;
        }
        let present = self.bytes(|_| {}).await?;
        if self.options.dry_run { Ok(()) } else { self.links(&present).await }
    }

    /// Returns about `most` digests that would be removed now: bytes, and links without bytes. A dry run removes
    /// nothing.
    ///
    /// A digest comes with all unreachable referrers that keep it: neither is removed without the other.
    pub(super) async fn candidates(mut self, most: usize) -> Result<Candidates, SourceError> {
        let mut garbage = Vec::new();
        let present = self.bytes(|digest| garbage.push(digest.clone())).await?;
        let order = self.graph.top_down();
        let rank = |digest: &Digest| order.get(&Key::from(digest)).copied();
        garbage.sort_by_cached_key(rank);
        let cycles =
            garbage.chunk_by(|one, other| one == other || rank(one).is_some() && rank(one) == rank(other));
        let mut candidates: Vec<Digest> = Vec::new();
        for cycle in cycles {
            if !candidates.is_empty() && candidates.len() + cycle.len() > most {
                return Ok(Candidates { digests: candidates, complete: false, report: self.report });
            }
            candidates.extend_from_slice(cycle);
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
                    return Ok(Candidates { digests: candidates, complete: false, report: self.report });
                }
                candidates.push(digest);
            }
        }
        Ok(Candidates { digests: candidates, complete: true, report: self.report })
    }

    fn may_go(&self, key: Key) -> bool {
        let covers =
            |announced: Removable<'_>| announced.keys.contains(&key) && announced.deadline.is_valid();
        self.announced.is_none_or(covers)
    }

    /// Begins to remove a digest that is neither reachable nor leased.
    fn removal(&mut self, key: Key) -> Option<Vec<Removal>> {
        self.removals(&HashSet::from([key]))
    }

    /// Begins to remove digests together, if none of them is reachable or leased.
    fn removals(&mut self, keys: &HashSet<Key>) -> Option<Vec<Removal>> {
        if !keys.iter().all(|key| self.may_go(*key)) {
            return None;
        }
        // In this order: a lease that is not visible yet waits until the removal is over.
        let removals = keys.iter().map(|key| self.run.remove(*key)).collect::<Option<_>>()?;
        self.graph.extend(&mut self.reachable, self.run.noted());
        keys.iter().all(|key| !self.reachable.contains(*key)).then_some(removals)
    }

    /// Removes untagged manifests from their repositories.
    async fn manifests(&mut self) -> Result<(), SourceError> {
        let order = self.graph.top_down();
        let mut garbage: Vec<(Rank, RepositoryName, Digest)> = Vec::new();
        let mut repositories = self.store.repositories();
        while let Some(repository) = repositories.try_next().await? {
            let mut manifests = self.store.manifests(&repository);
            while let Some(digest) = manifests.try_next().await? {
                let key = Key::from(&digest);
                // Manifests that are not in the graph were added during the run.
                if let Some(&rank) = order.get(&key).filter(|_| !self.reachable.contains(key)) {
                    garbage.push((rank, repository.clone(), digest));
                }
            }
        }
        garbage.sort_unstable_by_key(|(rank, ..)| *rank);
        for level in garbage.chunk_by(|(one, ..), (other, ..)| one.level == other.level) {
            self.level(level).await?;
        }
        Ok(())
    }

    /// Removes the manifests of one level: none of them is kept by another one, except within a cycle.
    async fn level(&mut self, level: &[(Rank, RepositoryName, Digest)]) -> Result<(), SourceError> {
        let mut deletes = ConcurrentDeletes::default();
        // Members of a cycle are removed together: a client that finds one of them finds all.
        for cycle in level.chunk_by(|(one, ..), (other, ..)| one == other) {
            let keys = cycle.iter().map(|(_, _, digest)| Key::from(digest)).collect();
            let Some(removals) = self.removals(&keys) else { continue };
            let (store, cycle) = (self.store.clone(), cycle.to_vec());
            let delete = async move {
                for (_, repository, digest) in cycle {
                    or_gone(store.delete_manifest(&repository, &digest).await)?;
                }
                Ok(())
            };
            deletes.begin((), removals, delete).await?;
        }
        deletes.end().await.map(drop)
    }

    /// Removes bytes; returns what is kept.
    async fn bytes(&mut self, mut going: impl FnMut(&Digest) + Send) -> Result<HashSet<Key>, SourceError> {
        let mut present = HashSet::new();
        let mut deletes = ConcurrentDeletes::default();
        let mut blobs = self.store.blobs();
        while let Some(blob) = blobs.try_next().await? {
            let key = Key::from(&blob.digest);
            let garbage = self.old.is(&blob, key) && !self.reachable.contains(key);
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
                deletes.begin(blob, removal, async move { store.remove_blob(&digest).await }).await?
            };
            removed.iter().for_each(|blob| self.went(blob));
        }
        deletes.end().await?.iter().for_each(|blob| self.went(blob));
        Ok(present)
    }

    fn went(&mut self, blob: &StoredBlob) {
        self.report.removed += 1;
        self.report.reclaimed_bytes += blob.size;
        (self.gone)(blob);
    }

    /// Removes links to missing bytes, removed in this run or in an interrupted one.
    async fn links(&mut self, present: &HashSet<Key>) -> Result<(), SourceError> {
        let mut repositories = self.store.repositories();
        while let Some(repository) = repositories.try_next().await? {
            let mut deletes = ConcurrentDeletes::default();
            let mut links = self.store.linked_blobs(&repository);
            while let Some(digest) = links.try_next().await? {
                let key = Key::from(&digest);
                if present.contains(&key) || !self.may_go(key) {
                    continue;
                }
                let Some(removal) = self.run.remove(key) else { continue };
                let (store, repository) = (self.store.clone(), repository.clone());
                let unlink = async move {
                    // It may have been written since the walk over all bytes.
                    match store.has_blob(&digest).await? {
                        Some(_) => Ok(()),
                        None => store.unlink_blob(&repository, &digest).await,
                    }
                };
                deletes.begin((), vec![removal], unlink).await?;
                self.unlinked += 1;
            }
            // Before the next repository, which may have links to the same bytes.
            deletes.end().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
