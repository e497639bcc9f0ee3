//! Referrers index, outside the layout, as in the file system store.
//!
//! Invariant: the index may have extra entries but never misses one: a manifest gets its referrer link before it is
//! visible, and every entry is checked against the manifest when it is listed. Manifests written by other programs
//! have no such links. So the first query for a repository in each process reads the manifests added since the index
//! was last complete (`_complete`).

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use kuik_core::content::{
    DecodedManifest, Descriptor, Digest, Manifest, SourceError, TagOrDigest, fallback_tag,
};
use tokio::sync::Mutex;

use super::{RepositoryKey, Shared};
use crate::store::layout;

/// Number of concurrent reads of manifests.
const AT_ONCE: usize = 16;

/// Maximum duration of another process's write.
const SLACK: Duration = Duration::from_secs(60);

/// Repositories whose index this process found or made complete. From then on it stays complete.
pub(super) type Indexed = Mutex<HashSet<RepositoryKey>>;

impl Shared {
    /// Returns the descriptors of the referrers of `subject`.
    pub(super) async fn referrers_of(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, SourceError> {
        let is_indexed = self.indexed.lock().await.contains(repository);
        if !is_indexed {
            // If two tasks do this at once, both results are correct.
            if !self.complete_index(attempted, repository).await? {
                return Ok(Vec::new());
            }
            self.indexed.lock().await.insert(repository.clone());
        }
        self.list_referrers(attempted, repository, subject).await
    }

    /// Writes missing referrer links for all manifests of the repository. Returns whether there is any manifest.
    async fn complete_index(&self, attempted: &str, repository: &RepositoryKey) -> Result<bool, SourceError> {
        let marker = repository.at(layout::REFERRERS_MARKER);
        let complete_until = self.bucket.head(attempted, &marker).await?.map(|marker| marker.modified);
        let mut found_any = false;
        let mut unknown = self
            .links(attempted.to_owned(), repository.at(layout::REVISIONS))
            .inspect_ok(|_| found_any = true)
            .try_filter(|(_, link)| {
                let is_known = complete_until.is_some_and(|until| link.modified + SLACK < until);
                std::future::ready(!is_known)
            })
            .map_ok(|(digest, _)| async move {
                let manifest = self.readable(attempted, repository, &digest).await?;
                if let Some(subject) = manifest.and_then(|manifest| manifest.subject()) {
                    let link = repository.at(layout::referrer_link(&subject, &digest));
                    self.write_link(attempted, &link, &digest).await?;
                }
                Ok(())
            })
            .try_buffer_unordered(AT_ONCE)
            .boxed();
        while unknown.try_next().await?.is_some() {}
        drop(unknown);
        if found_any {
            // Without it, the next process reads all of them again.
            let _ = self.bucket.put(attempted, &marker, Bytes::new()).await;
        }
        Ok(found_any)
    }

    async fn list_referrers(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, SourceError> {
        let tagged = self.tagged_referrers(attempted, repository, subject).await?;
        let tagged = &tagged;
        let linked = self
            .links(attempted.to_owned(), repository.at(layout::referrers_of(subject)))
            .try_filter(|(digest, _)| std::future::ready(!tagged.contains(digest)))
            .map_ok(|(digest, _)| async move {
                let referrer = self.readable(attempted, repository, &digest).await?;
                Ok(referrer.filter(|referrer| referrer.subject().as_ref() == Some(subject)))
            })
            .try_buffered(AT_ONCE)
            .try_filter_map(|referrer| std::future::ready(Ok(referrer)));
        let mut descriptors: Vec<_> =
            linked.map_ok(|referrer| referrer.referrer_descriptor()).boxed().try_collect().await?;
        for digest in tagged {
            let found = self.readable(attempted, repository, digest).await?;
            descriptors.extend(found.map(|found| found.referrer_descriptor()));
        }
        Ok(descriptors)
    }

    /// Returns the referrers that a client listed under the fallback tag. Their subject is not checked.
    async fn tagged_referrers(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        subject: &Digest,
    ) -> Result<BTreeSet<Digest>, SourceError> {
        let Some(tag) = fallback_tag(subject) else { return Ok(BTreeSet::new()) };
        let tagged = match self.manifest(attempted, repository, &TagOrDigest::Tag(tag)).await {
            Ok(manifest) => manifest.decode().ok(),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        Ok(match tagged {
            Some(DecodedManifest::Index(index)) => {
                index.manifests.into_iter().map(|entry| entry.digest).collect()
            }
            _ => BTreeSet::new(),
        })
    }

    /// Returns a manifest of the repository; `None` if it is absent or damaged.
    async fn readable(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        digest: &Digest,
    ) -> Result<Option<Manifest>, SourceError> {
        match self.manifest(attempted, repository, &TagOrDigest::Digest(digest.clone())).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
