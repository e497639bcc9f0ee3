//! Reads: manifests, blobs, tags and referrers.
//!
//! A blob and its link in the repository are requested concurrently: the first byte is one round trip away, not two.
//! A body that is shorter than announced ends in an error.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use kuik_core::{
    content::{
        Blob, BlobLocation, ByteRange, Cached, ContentSource, Descriptor, Digest, Freshness,
        MAX_MANIFEST_BYTES, Manifest, Referrers, SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    reference::RepositoryName,
};
use object_store::{GetRange, GetResult};

use super::{ObjectStorage, RepositoryKey, Shared};
use crate::store::{Damaged, layout};

#[async_trait]
impl ContentSource for ObjectStorage {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        Ok(self.manifest(repository, at, freshness).await?.map(|manifest| manifest.descriptor()))
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        _freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        let attempted = format!("read manifest {at} of {repository}");
        let manifest = self.shared.manifest(&attempted, &RepositoryKey::of(repository)?, at).await?;
        Ok(Cached::from_cache(manifest))
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        let attempted = format!("find blob {digest} of {repository}");
        let (link, key) =
            (RepositoryKey::of(repository)?.at(layout::layer_link(digest)), layout::blob(digest));
        let linked = self.shared.require_link(&attempted, &link, digest);
        let (linked, found) = futures::join!(linked, self.shared.bucket.head(&attempted, &key));
        linked?;
        let found = found?.ok_or_else(|| SourceError::new(SourceErrorKind::NotFound, attempted))?;
        Ok(Cached::from_cache(found.size))
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        let attempted = format!("read blob {digest} of {repository}");
        let (link, key) =
            (RepositoryKey::of(repository)?.at(layout::layer_link(digest)), layout::blob(digest));
        let linked = self.shared.require_link(&attempted, &link, digest);
        let (linked, got) = futures::join!(linked, self.shared.get_part(&attempted, &key, range));
        linked?;
        let got = got?;
        let (size, bytes) = (got.meta.size, got.range.clone());
        let expected = bytes.end.saturating_sub(bytes.start);
        let body = exactly(self.shared.clone().stream(got, attempted.clone()), expected, attempted);
        let range = (range != ByteRange::Full).then_some(bytes);
        Ok(Cached::from_cache(Blob { size: Some(size), range, body: body.boxed() }))
    }

    async fn blob_location(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        valid_for: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        if !self.shared.bucket.signs() {
            return Ok(None);
        }
        let size = match self.blob_size(repository, digest).await {
            Err(error) if error.is_not_found() => return Ok(None),
            found => found?.content,
        };
        let attempted = format!("sign a URL of blob {digest} of {repository}");
        self.shared.bucket.location(&attempted, &layout::blob(digest), size, valid_for).await
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        let attempted = format!("list the tags of {repository}");
        self.shared.tags(attempted, &RepositoryKey::of(repository)?, page).await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        let attempted = format!("list the referrers of {digest} in {repository}");
        let repository = RepositoryKey::of(repository)?;
        let descriptors = self.shared.referrers_of(&attempted, &repository, digest).await?;
        Ok(Referrers::list(descriptors, artifact_type))
    }
}

impl Shared {
    /// Returns a manifest of the repository, verified.
    pub(super) async fn manifest(
        &self,
        attempted: &str,
        repository: &RepositoryKey,
        at: &TagOrDigest,
    ) -> Result<Manifest, SourceError> {
        let absent = || SourceError::new(SourceErrorKind::NotFound, attempted);
        let digest = match at {
            TagOrDigest::Digest(digest) => digest.clone(),
            TagOrDigest::Tag(tag) => {
                let linked = self.read_link(attempted, &repository.at(layout::tag_link(tag))).await?;
                linked.ok_or_else(absent)?
            }
        };
        let (link, key) = (repository.at(layout::revision_link(&digest)), layout::blob(&digest));
        let linked = self.require_link(attempted, &link, &digest);
        let (linked, bytes) =
            futures::join!(linked, self.bucket.read(attempted, &key, MAX_MANIFEST_BYTES as u64));
        linked?;
        let manifest = Manifest::new(None, bytes?.ok_or_else(absent)?).map_err(|error| Damaged(error.into()));
        let verified = manifest
            .and_then(|manifest| manifest.verified_as(&digest).map_err(|error| Damaged(error.into())));
        verified.map_err(|damaged| SourceError::caused_by(SourceErrorKind::NotFound, attempted, damaged))
    }

    /// Returns a range of an object. Providers respond differently to an unsatisfiable range, and not all support
    /// suffix ranges: if one is rejected, the object's size decides.
    async fn get_part(&self, attempted: &str, key: &str, range: ByteRange) -> Result<GetResult, SourceError> {
        let wanted = match range {
            ByteRange::Full => return self.bucket.get(attempted, key, None).await,
            ByteRange::From { first, last: None | Some(u64::MAX) } => Some(GetRange::Offset(first)),
            ByteRange::From { first, last: Some(last) } => {
                (first <= last).then(|| GetRange::Bounded(first..last + 1))
            }
            ByteRange::Suffix { length } => (length > 0).then_some(GetRange::Suffix(length)),
        };
        let refused = match wanted {
            Some(wanted) => match self.bucket.get(attempted, key, Some(wanted)).await {
                Err(error) if !error.is_not_found() => Some(error),
                got => return got,
            },
            None => None,
        };
        let found = self.bucket.head(attempted, key).await?;
        let found = found.ok_or_else(|| SourceError::new(SourceErrorKind::NotFound, attempted))?;
        let bytes = range.resolve(found.size).map_err(|error| {
            SourceError::caused_by(SourceErrorKind::RangeNotSatisfiable, attempted, error)
        })?;
        match (refused, range) {
            (Some(error), ByteRange::From { .. }) => Err(error),
            _ => self.bucket.get(attempted, key, Some(GetRange::Bounded(bytes))).await,
        }
    }

    fn stream(
        self: std::sync::Arc<Self>,
        got: GetResult,
        attempted: String,
    ) -> BoxStream<'static, Result<Bytes, SourceError>> {
        got.into_stream()
            .map(move |chunk| chunk.map_err(|error| self.bucket.failed(&attempted, &error)))
            .boxed()
    }
}

/// Returns `chunks`, followed by an error if they are not `expected` bytes.
fn exactly(
    chunks: BoxStream<'static, Result<Bytes, SourceError>>,
    expected: u64,
    attempted: String,
) -> impl Stream<Item = Result<Bytes, SourceError>> + Send {
    futures::stream::try_unfold((chunks, expected), move |(mut chunks, left)| {
        let attempted = attempted.clone();
        async move {
            let wrong = |problem: &str| {
                let attempted = format!("{attempted}: the provider sent {problem} than announced");
                Err(SourceError::new(SourceErrorKind::Storage, attempted))
            };
            match chunks.next().await.transpose()? {
                None if left == 0 => Ok(None),
                None => wrong("less"),
                Some(chunk) => match left.checked_sub(chunk.len() as u64) {
                    Some(left) => Ok(Some((chunk, (chunks, left)))),
                    None => wrong("more"),
                },
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt as _, stream};

    use super::*;

    #[tokio::test]
    async fn body_of_unexpected_length_is_an_error() {
        for (expected, right) in [(4, false), (5, true), (6, false)] {
            let chunks =
                stream::iter([&b"he"[..], b"llo"].map(|chunk| Ok(Bytes::from_static(chunk)))).boxed();
            let all = exactly(chunks, expected, "read".to_owned()).try_collect::<Vec<_>>().await;
            assert_eq!(all.is_ok(), right, "{expected}");
        }
    }
}
