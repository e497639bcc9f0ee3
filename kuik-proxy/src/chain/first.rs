//! The chain itself: sources in order, the first that can answer does.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::future::BoxFuture;
use kuik_core::{
    content::{
        Blob, ByteRange, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers, Served,
        SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    failover::{Role, Verdict, most_useful},
    reference::RepositoryName,
};

/// A source that asks others, in order, until one can answer. Cheap to clone.
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
    /// A source, what it is called in logs, and what it is to the content.
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
    /// A chain of these, the first one first.
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
            if role.verdict(error.kind()) == Verdict::Answer {
                return Err(error);
            }
            tracing::debug!(source = name, error = error.chain(), "a source cannot answer");
            failure = Some(most_useful(failure, error));
        }
        Err(failure.unwrap_or_else(|| {
            SourceError::new(SourceErrorKind::Unavailable, "ask for content: no source is configured")
        }))
    }
}

#[async_trait]
impl ContentSource for Chain {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        self.first(|source| source.resolve(repository, at, freshness)).await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        self.first(|source| source.manifest(repository, at, freshness)).await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        self.first(|source| source.blob_size(repository, digest)).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
        self.first(|source| source.blob(repository, digest, range)).await
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
}
