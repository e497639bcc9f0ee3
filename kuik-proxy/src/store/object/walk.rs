//! Walks over stored content in bounded memory: one page of a list at a time.
//!
//! Keys are listed in order, so all those of a repository are adjacent, and the age of bytes (`.kuik/renewed`) is
//! listed in parallel to them. Objects outside the layout are skipped: users leave objects in buckets too. Links are
//! not read: objects are never torn, and readers check the link.

use std::cmp::Ordering;

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream, Peekable},
};
use kuik_core::{
    content::{Digest, SourceError, StoredBlob, UploadId},
    reference::RepositoryName,
};

use super::{RENEWED, RepositoryKey, Shared, bucket::Found};
use crate::store::layout;

type Walk<T> = BoxStream<'static, Result<T, SourceError>>;

impl Shared {
    /// Returns every repository with content.
    pub(super) fn repositories(&self) -> Walk<RepositoryName> {
        let listed = self.bucket.list("list the repositories".to_owned(), layout::REPOSITORIES, None);
        let mut last = String::new();
        listed
            .try_filter_map(move |found| {
                let name = repository_of(&found.key).filter(|name| *name != last).map(|name| {
                    last = name.to_owned();
                    RepositoryName::local(name).ok()
                });
                std::future::ready(Ok(name.flatten()))
            })
            .boxed()
    }

    /// Returns the digests with a link below `prefix` (`ALGORITHM/HEX/link`).
    pub(super) fn links(&self, attempted: String, prefix: String) -> Walk<(Digest, Found)> {
        let listed = self.bucket.list(attempted, &prefix, None);
        listed
            .try_filter_map(move |found| {
                let below = found.key.strip_prefix(&prefix).and_then(|key| key.strip_prefix('/'));
                let digest = below.and_then(linked);
                std::future::ready(Ok(digest.map(|digest| (digest, found))))
            })
            .boxed()
    }

    /// Returns every blob and manifest, with the age of its last write, publication or link.
    pub(super) fn blobs(&self) -> Walk<StoredBlob> {
        let attempted = "list the blobs".to_owned();
        let blobs = self.bucket.list(attempted.clone(), layout::BLOBS, None);
        let blobs = blobs.try_filter_map(|found| std::future::ready(Ok(stored(&found)))).boxed();
        let renewed = self.bucket.list(attempted, RENEWED, None).peekable();
        stream::try_unfold((blobs, renewed), |(mut blobs, mut renewed)| async move {
            let Some(mut blob) = blobs.try_next().await? else { return Ok(None) };
            if let Some(again) = renewal_of(&blob.digest, &mut renewed).await? {
                blob.modified = blob.modified.max(again.modified);
            }
            Ok(Some((blob, (blobs, renewed))))
        })
        .boxed()
    }

    /// Returns whether a repository has a manifest, a blob or an upload.
    pub(super) async fn has_something(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
    ) -> Result<bool, SourceError> {
        for part in [layout::REVISIONS, layout::LAYERS, layout::UPLOADS] {
            let listed = self.bucket.list(attempted.to_owned(), &repository.at(part), None);
            let found = listed.try_filter(|found| std::future::ready(repository_of(&found.key).is_some()));
            if found.boxed().try_next().await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the age marker of the bytes of `digest`. Both lists are in the same order: skipped markers are of removed
/// bytes.
async fn renewal_of(
    digest: &Digest,
    renewed: &mut Peekable<Walk<Found>>,
) -> Result<Option<Found>, SourceError> {
    let wanted = super::renewed(digest);
    loop {
        let mut renewed = std::pin::Pin::new(&mut *renewed);
        match renewed.as_mut().peek().await {
            Some(Ok(found)) if found.key.as_str().cmp(&wanted) == Ordering::Greater => return Ok(None),
            None => return Ok(None),
            Some(_) => {}
        }
        match renewed.as_mut().try_next().await? {
            Some(found) if found.key == wanted => return Ok(Some(found)),
            _ => {}
        }
    }
}

/// Returns the repository of a key, if it is that of a manifest, a blob or an upload.
fn repository_of(key: &str) -> Option<&str> {
    let below = key.strip_prefix(layout::REPOSITORIES)?.strip_prefix('/')?;
    let (name, _) = below.split_once("/_")?;
    let rest = below.get(name.len() + 1..)?;
    let linked_in = |part| rest.strip_prefix(part).and_then(|rest| linked(rest.strip_prefix('/')?)).is_some();
    let is_upload = || {
        let (id, _) = rest.strip_prefix(layout::UPLOADS)?.strip_prefix('/')?.split_once('/')?;
        id.parse::<UploadId>().ok()
    };
    (linked_in(layout::LAYERS) || linked_in(layout::REVISIONS) || is_upload().is_some()).then_some(name)
}

/// Returns the digest of `ALGORITHM/HEX/link`.
fn linked(key: &str) -> Option<Digest> {
    let (algorithm, encoded) = key.strip_suffix("/link")?.split_once('/')?;
    format!("{algorithm}:{encoded}").parse().ok()
}

fn stored(found: &Found) -> Option<StoredBlob> {
    let below = found.key.strip_prefix(layout::BLOBS)?.strip_prefix('/')?;
    let mut parts = below.strip_suffix("/data")?.split('/');
    let (algorithm, _shard, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let digest: Digest = format!("{algorithm}:{encoded}").parse().ok()?;
    // Any other key would not be found.
    let is_its_place = layout::blob(&digest) == found.key;
    is_its_place.then_some(StoredBlob { digest, size: found.size, modified: found.modified })
}
