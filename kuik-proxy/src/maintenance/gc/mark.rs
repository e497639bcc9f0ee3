//! Mark phase: the walk that builds the reference graph.
//!
//! Invariant: unreadable data ends the run or keeps more, never less.

use std::{collections::HashSet, time::SystemTime};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream, stream::TryChunksError};
use kuik_core::{
    content::{Digest, Freshness, RegistryStore, SourceError, SourceErrorKind, TagOrDigest, TagPage},
    reference::RepositoryName,
};

use super::graph::{Graph, Key};

/// Number of tags read between two walks through a repository's directory of tags.
const TAGS_AT_ONCE: usize = 10_000;
/// Number of manifests taken from a walk before they are read.
const MANIFESTS_AT_ONCE: usize = 256;
/// Number of concurrent reads of tags or manifests, because each request to a bucket takes time.
const READ_AT_A_TIME: usize = 16;

/// Returns the reference graph of the whole store with its roots. Manifests in `known` are not read again.
pub(super) async fn graph(
    store: &dyn RegistryStore,
    delete_untagged: bool,
    old_before: SystemTime,
    known: Graph,
) -> Result<Graph, SourceError> {
    // First, so that content published during the walk does not count as old.
    let old = if delete_untagged { Some(old(store, old_before).await?) } else { None };
    let is_held = |digest: &Digest| old.as_ref().is_none_or(|old| !old.contains(&Key::from(digest)));
    let mut graph = known.without_roots();
    let mut repositories = store.repositories();
    while let Some(repository) = repositories.try_next().await? {
        tags(store, &repository, &mut graph).await?;
        let mut is_damaged = false;
        let mut found = store.manifests(&repository).try_chunks(MANIFESTS_AT_ONCE);
        while let Some(digests) = found.try_next().await.map_err(|TryChunksError(_, error)| error)? {
            digests.iter().filter(|digest| is_held(digest)).for_each(|digest| graph.add_root(digest));
            is_damaged |= manifests(store, &repository, digests, &mut graph).await?;
        }
        if is_damaged {
            tracing::warn!(%repository, "repository has unreadable manifests, keeping all of it until they are pulled or pushed again, or deleted");
            keep_all(store, &repository, &mut graph).await?;
        }
    }
    Ok(graph)
}

/// Adds the manifests of a repository that the graph does not contain; returns whether one of them is unreadable.
async fn manifests(
    store: &dyn RegistryStore,
    repository: &RepositoryName,
    digests: Vec<Digest>,
    graph: &mut Graph,
) -> Result<bool, SourceError> {
    let mut is_damaged = false;
    let unknown: Vec<_> = digests.into_iter().filter(|digest| !graph.knows(digest)).collect();
    let reads = unknown.into_iter().map(|digest| {
        let read = async move {
            let at = TagOrDigest::Digest(digest.clone());
            (store.manifest(repository, &at, Freshness::Cached).await, digest)
        };
        read.boxed()
    });
    let mut read = stream::iter(reads).buffer_unordered(READ_AT_A_TIME);
    while let Some((manifest, digest)) = read.next().await {
        match manifest {
            Ok(manifest) => graph.add_manifest(&digest, &manifest.content),
            // Damaged, or quarantined for that: its references are unknown until it is restored or deleted.
            Err(error) if is_unreadable(&error) => {
                tracing::warn!(%repository, %digest, "cannot read manifest");
                is_damaged = true;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(is_damaged)
}

fn is_unreadable(error: &SourceError) -> bool {
    matches!(error.kind(), SourceErrorKind::NotFound | SourceErrorKind::InvalidContent)
}

async fn old(store: &dyn RegistryStore, old_before: SystemTime) -> Result<HashSet<Key>, SourceError> {
    let old = store.blobs().try_filter_map(|blob| {
        std::future::ready(Ok((blob.modified < old_before).then(|| Key::from(&blob.digest))))
    });
    old.try_collect().await
}

/// Adds the targets of a repository's tags as roots.
async fn tags(
    store: &dyn RegistryStore,
    repository: &RepositoryName,
    graph: &mut Graph,
) -> Result<(), SourceError> {
    let mut page = TagPage { limit: Some(TAGS_AT_ONCE), after: None };
    loop {
        let list = match store.tags(repository, &page).await {
            Err(error) if error.kind() == SourceErrorKind::NotFound => return Ok(()),
            list => list?,
        };
        let tags = list.tags.iter().filter_map(|tag| tag.parse().ok()).map(TagOrDigest::Tag);
        let tags: Vec<TagOrDigest> = tags.collect();
        let resolve = |at| async move { store.resolve(repository, &at, Freshness::Cached).await }.boxed();
        let mut resolved = stream::iter(tags.into_iter().map(resolve)).buffer_unordered(READ_AT_A_TIME);
        while let Some(found) = resolved.next().await {
            match found {
                Ok(found) => graph.add_root(&found.content.digest),
                // Deleted meanwhile, or damaged; the walk of its manifests finds that.
                Err(error) if is_unreadable(&error) => {}
                Err(error) => return Err(error),
            }
        }
        page.after = list.tags.last().cloned();
        if !list.more || page.after.is_none() {
            return Ok(());
        }
    }
}

/// Adds everything in a repository as a root: every blob pushed into it is linked there.
async fn keep_all(
    store: &dyn RegistryStore,
    repository: &RepositoryName,
    graph: &mut Graph,
) -> Result<(), SourceError> {
    let everything = [store.manifests(repository), store.linked_blobs(repository)];
    for mut digests in everything {
        while let Some(digest) = digests.try_next().await? {
            let digest: Digest = digest;
            graph.add_root(&digest);
        }
    }
    Ok(())
}
