//! The walk that finds out what refers to what.
//!
//! Invariant: what it cannot find out ends the run or keeps more, and never less.

use std::{collections::HashSet, time::SystemTime};

use futures::TryStreamExt as _;
use kuik_core::{
    content::{Digest, Freshness, ManagedStore, SourceError, SourceErrorKind, TagOrDigest, TagPage},
    reference::RepositoryName,
};

use super::graph::{Graph, Key};

/// How many tags are looked at between two walks through a repository's directory of tags.
const TAGS_AT_ONCE: usize = 10_000;

/// What refers to what in the whole store, and what is held for its own sake.
pub(super) async fn graph(
    store: &dyn ManagedStore,
    delete_untagged: bool,
    old_before: SystemTime,
) -> Result<Graph, SourceError> {
    // First, so that whatever is published during the walk does not count as old.
    let old = if delete_untagged { Some(old(store, old_before).await?) } else { None };
    let mut graph = Graph::default();
    let mut repositories = store.repositories();
    while let Some(repository) = repositories.try_next().await? {
        tags(store, &repository, &mut graph).await?;
        let mut manifests = store.manifests(&repository);
        while let Some(digest) = manifests.try_next().await? {
            if old.as_ref().is_none_or(|old| !old.contains(&Key::from(&digest))) {
                graph.add_root(&digest);
            }
            match store.manifest(&repository, &TagOrDigest::Digest(digest.clone()), Freshness::Cached).await {
                Ok(manifest) => graph.add_manifest(&digest, &manifest.content),
                Err(error) if is_unreadable(&error) && store.has_blob(&digest).await?.is_some() => {
                    tracing::warn!(%repository, %digest, "a manifest cannot be read: its whole repository is kept");
                    keep_all(store, &repository, &mut graph).await?;
                }
                Err(error) if is_unreadable(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(graph)
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
        for tag in &list.tags {
            let Ok(tag) = tag.parse() else { continue };
            match store.resolve(repository, &TagOrDigest::Tag(tag), Freshness::Cached).await {
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
