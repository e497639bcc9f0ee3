//! [`ContentSource`] of a [`MemoryStore`].

use async_trait::async_trait;
use futures::{StreamExt as _, stream};

use super::{MemoryStore, absent};
use kuik_core::{
    content::{
        Blob, ByteRange, Cached, ContentSource, DecodedManifest, Descriptor, Digest, Freshness, Manifest,
        Referrers, SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage, fallback_tag,
    },
    reference::{RepositoryName, Tag},
};

#[async_trait]
impl ContentSource for MemoryStore {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        _freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        Ok(Cached::from_cache(self.state().manifest(repository, at)?.descriptor()))
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        _freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        Ok(Cached::from_cache(self.state().manifest(repository, at)?))
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        Ok(Cached::from_cache(self.state().layer(repository, digest)?.len() as u64))
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        let bytes = self.state().layer(repository, digest)?;
        let size = bytes.len() as u64;
        let part = range.resolve(size).map_err(|error| {
            let attempted = format!("read blob {digest} of {repository} from memory");
            SourceError::caused_by(SourceErrorKind::RangeNotSatisfiable, attempted, error)
        })?;
        let offset = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let body = bytes.slice(offset(part.start)..offset(part.end));
        Ok(Cached::from_cache(Blob {
            size: Some(size),
            range: (range != ByteRange::Full).then_some(part),
            body: stream::iter((!body.is_empty()).then_some(Ok(body))).boxed(),
        }))
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        let state = self.state();
        let found = state.repository(repository)?;
        let found = found.ok_or_else(|| absent(format!("list the tags of {repository} in memory")))?;
        let after = |tag: &&str| page.after.as_deref().is_none_or(|after| *tag > after);
        let mut tags = found.tags.keys().map(Tag::as_str).filter(after).map(str::to_owned);
        let tags_of_page = tags.by_ref().take(page.limit.unwrap_or(usize::MAX)).collect();
        Ok(TagList { tags: tags_of_page, more: tags.next().is_some() })
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        let state = self.state();
        let Some(found) = state.repository(repository)? else {
            return Ok(Referrers::list(Vec::new(), artifact_type));
        };
        let tagged = fallback_tag(digest)
            .and_then(|tag| state.manifest(repository, &TagOrDigest::Tag(tag)).ok()?.decode().ok());
        let tagged = match tagged {
            Some(DecodedManifest::Index(index)) => index.manifests,
            _ => Vec::new(),
        };
        let refers = |manifest: &Manifest| {
            manifest.subject().as_ref() == Some(digest)
                || tagged.iter().any(|entry| entry.digest == *manifest.digest())
        };
        let manifests = found
            .manifests
            .iter()
            .map(|digest| state.manifest(repository, &TagOrDigest::Digest(digest.clone())));
        let descriptors = manifests.flatten().filter(refers).map(|manifest| manifest.referrer_descriptor());
        Ok(Referrers::list(descriptors.collect(), artifact_type))
    }
}
