//! What repositories are called at a cache: `docker.io/library/nginx` is a path there, in its own registry.

use std::sync::Arc;

use super::{
    Blob, ByteRange, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers, Served, SourceError,
    SourceErrorKind, TagList, TagOrDigest, TagPage,
};
use crate::reference::RepositoryName;
use async_trait::async_trait;

/// A source of other registries' content, over a cache that has it under their encoded names as its own.
///
/// What is asked for as `registry:5000/app` is asked of the cache as its repository `registry__5000/app`.
#[derive(Debug, Clone)]
pub struct CacheNames {
    cache: Arc<dyn ContentSource>,
}

impl CacheNames {
    /// A source over `cache`, which knows repositories by their paths alone
    /// ([`RepositoryName::local`]).
    #[must_use]
    pub fn new(cache: Arc<dyn ContentSource>) -> Self {
        Self { cache }
    }

    /// What `repository` is called at a cache.
    ///
    /// # Errors
    /// `Unsupported` where a path cannot hold it.
    pub fn at_cache(repository: &RepositoryName) -> Result<RepositoryName, SourceError> {
        let attempted = || format!("ask the cache for {repository}");
        let unsupported = |error: Box<dyn std::error::Error + Send + Sync>| {
            SourceError::caused_by(SourceErrorKind::Unsupported, attempted(), error)
        };
        let path = repository.encoded().map_err(|error| unsupported(error.into()))?;
        RepositoryName::local(&path).map_err(|error| unsupported(error.into()))
    }
}

#[async_trait]
impl ContentSource for CacheNames {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        self.cache.resolve(&Self::at_cache(repository)?, at, freshness).await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        self.cache.manifest(&Self::at_cache(repository)?, at, freshness).await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        self.cache.blob_size(&Self::at_cache(repository)?, digest).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
        self.cache.blob(&Self::at_cache(repository)?, digest, range).await
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        self.cache.tags(&Self::at_cache(repository)?, page).await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        self.cache.referrers(&Self::at_cache(repository)?, digest, artifact_type).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_of_the_cache() {
        let at_cache = CacheNames::at_cache;
        for (name, path) in [
            ("nginx", "docker.io/library/nginx"),
            ("registry:5000/app", "registry__5000/app"),
            ("127.0.0.1:5000/team/app", "127.0.0.1__5000/team/app"),
        ] {
            let local = at_cache(&name.parse().unwrap()).unwrap();
            assert_eq!((local.registry(), local.path()), ("", path));
        }
        let error = at_cache(&"[::1]:5000/app".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Unsupported);
    }
}
