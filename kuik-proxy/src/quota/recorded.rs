//! A source that remembers which manifests it has served, and when.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use kuik_core::{
    content::{
        Blob, ByteRange, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers, Served,
        SourceError, TagList, TagOrDigest, TagPage,
    },
    reference::RepositoryName,
};

use super::Pulls;

/// A source whose manifests count as pulled when they are served.
#[derive(Debug, Clone)]
pub struct Recorded<S> {
    source: S,
    pulls: Arc<Pulls>,
}

impl<S> Recorded<S> {
    /// `source`, with its pulls recorded in `pulls`.
    pub fn new(source: S, pulls: Arc<Pulls>) -> Self {
        Self { source, pulls }
    }
}

#[async_trait]
impl<S: ContentSource> ContentSource for Recorded<S> {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        self.source.resolve(repository, at, freshness).await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        let served = self.source.manifest(repository, at, freshness).await?;
        self.pulls.record(repository, served.content.digest(), SystemTime::now());
        Ok(served)
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        self.source.blob_size(repository, digest).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
        self.source.blob(repository, digest, range).await
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        self.source.tags(repository, page).await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        self.source.referrers(repository, digest, artifact_type).await
    }
}
