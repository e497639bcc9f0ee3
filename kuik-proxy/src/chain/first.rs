//! Ordered failover chain: the first source that can answer does.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use kuik_core::{
    content::{
        Blob, BlobLocation, ByteRange, Cached, ContentSource, Descriptor, Digest, Freshness, Manifest,
        Referrers, SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    failover::{OnError, Role, most_actionable},
    reference::RepositoryName,
};

/// A source that tries others, in order, until one can answer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Chain {
    links: Arc<[Link]>,
}

/// One source of a [`Chain`].
#[derive(Clone)]
pub struct Link {
    name: &'static str,
    role: Role,
    source: Arc<dyn ContentSource>,
}

impl Link {
    /// Returns a link over `source`, with its name in logs and its role in failover.
    pub fn new(name: &'static str, role: Role, source: Arc<dyn ContentSource>) -> Self {
        Self { name, role, source }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}): {:?}", self.name, self.role, self.source)
    }
}

impl Chain {
    /// Returns a chain that tries `links` in this order.
    #[must_use]
    pub fn new(links: Vec<Link>) -> Self {
        Self { links: links.into() }
    }

    async fn first<'a, T>(
        &'a self,
        ask: impl Fn(&'a dyn ContentSource) -> BoxFuture<'a, Result<T, SourceError>> + Send,
    ) -> Result<T, SourceError> {
        let mut failure = None;
        for Link { name, role, source } in self.links.iter() {
            let error = match ask(source.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if role.on_error(error.kind()) == OnError::Return {
                return Err(error);
            }
            tracing::debug!(source = name, error = error.chain(), "source failed, trying the next one");
            failure = Some(most_actionable(failure, error));
        }
        Err(failure.unwrap_or_else(|| {
            SourceError::new(SourceErrorKind::Unavailable, "request content: no source is configured")
        }))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentSource for Chain {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        self.first(|source| source.resolve(repository, at, freshness)).await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        self.first(|source| source.manifest(repository, at, freshness)).await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        self.first(|source| source.blob_size(repository, digest)).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        self.first(|source| source.blob(repository, digest, range)).await
    }

    /// Always `None`: clients are not redirected past the chain, because they may not reach what it reaches.
    async fn blob_location(
        &self,
        _: &RepositoryName,
        _: &Digest,
        _: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        Ok(None)
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        self.first(|source| source.tags(repository, page)).await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        self.first(|source| source.referrers(repository, digest, artifact_type)).await
    }

    /// Reports to every link: each knows by itself whether it served the blob last.
    fn report_corrupt(&self, repository: &RepositoryName, digest: &Digest) {
        for link in self.links.iter() {
            link.source.report_corrupt(repository, digest);
        }
    }
}
