//! Walks over all that is kept, in bounded memory: a page of a list at a time.
//!
//! Keys are listed in order, so all of a repository's stand together, and the age of bytes (`.kuik/renewed`) is
//! listed beside the bytes. What is not of the layout is passed over: people leave objects in buckets too. Links are
//! not read: no object is torn, and whoever reads through a link checks it.

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
    /// Every repository that has something.
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

    /// The digests that have a link below `prefix` (`ALGORITHM/HEX/link`).
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

    /// Every blob and manifest, as old as it was last written, published or linked.
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

    /// Whether a repository has a manifest, a blob or an upload.
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

/// What says that the bytes of `digest` were renewed. Both lists are in the same order: what is passed over here is
/// of bytes that are gone.
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

/// The repository that has what a key is, where that is a manifest, a blob or an upload.
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

/// The digest of `ALGORITHM/HEX/link`.
fn linked(key: &str) -> Option<Digest> {
    let (algorithm, encoded) = key.strip_suffix("/link")?.split_once('/')?;
    format!("{algorithm}:{encoded}").parse().ok()
}

fn stored(found: &Found) -> Option<StoredBlob> {
    let below = found.key.strip_prefix(layout::BLOBS)?.strip_prefix('/')?;
    let mut parts = below.strip_suffix("/data")?.split('/');
    let (algorithm, _shard, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let digest: Digest = format!("{algorithm}:{encoded}").parse().ok()?;
    // Elsewhere it would not be found.
    let is_its_place = layout::blob(&digest) == found.key;
    is_its_place.then_some(StoredBlob { digest, size: found.size, modified: found.modified })
}
