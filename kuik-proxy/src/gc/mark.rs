//! The walk that finds out what refers to what.
//!
//! Invariant: what it cannot find out ends the run or keeps more, and never less.

use std::{collections::HashSet, time::SystemTime};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream, stream::TryChunksError};
use kuik_core::{
    content::{Digest, Freshness, ManagedStore, SourceError, SourceErrorKind, TagOrDigest, TagPage},
    reference::RepositoryName,
};

use super::graph::{Graph, Key};

/// How many tags are looked at between two walks through a repository's directory of tags.
const TAGS_AT_ONCE: usize = 10_000;
/// How many manifests are taken from a walk before they are read.
const MANIFESTS_AT_ONCE: usize = 256;
/// How many tags or manifests are read at a time: a bucket takes its time to answer.
const READ_AT_A_TIME: usize = 16;

/// What refers to what in the whole store, and what is held for its own sake. What `known` says of a manifest is not
/// read again.
pub(super) async fn graph(
    store: &dyn ManagedStore,
    delete_untagged: bool,
    old_before: SystemTime,
    known: Graph,
) -> Result<Graph, SourceError> {
    // First, so that whatever is published during the walk does not count as old.
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
            tracing::warn!(%repository, "the whole repository is kept until its damaged manifests are pulled or pushed again, or deleted");
            keep_all(store, &repository, &mut graph).await?;
        }
    }
    Ok(graph)
}

/// Adds the manifests of a repository that the graph does not know; says whether one of them cannot be read.
async fn manifests(
    store: &dyn ManagedStore,
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
            // Damaged, or set aside because it was: nobody knows what it needs until it is there again, or deleted.
            Err(error) if is_unreadable(&error) => {
                tracing::warn!(%repository, %digest, "a manifest cannot be read");
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

async fn old(store: &dyn ManagedStore, old_before: SystemTime) -> Result<HashSet<Key>, SourceError> {
    let old = store.blobs().try_filter_map(|blob| {
        std::future::ready(Ok((blob.modified < old_before).then(|| Key::from(&blob.digest))))
    });
    old.try_collect().await
}

/// Holds what the tags of a repository point at.
async fn tags(
    store: &dyn ManagedStore,
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
                // Deleted meanwhile; or damaged, and then its manifest is found to be so.
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

/// Holds everything that a repository has: every blob that was pushed into it is linked there.
async fn keep_all(
    store: &dyn ManagedStore,
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
