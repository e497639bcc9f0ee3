//! Name encoding for a cache registry, in which `docker.io/library/nginx` is the path of a local repository.

use std::{sync::Arc, time::Duration};

use super::{
    Blob, BlobLocation, ByteRange, Cached, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers,
    SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
};
use crate::reference::RepositoryName;
use async_trait::async_trait;

/// Source of other registries' content, backed by a cache that stores it in local repositories with encoded names.
///
/// A request for `registry:5000/app` becomes a request to the cache for its repository `registry__5000/app`.
#[derive(Debug, Clone)]
pub struct EncodedNames {
    cache: Arc<dyn ContentSource>,
}

impl EncodedNames {
    /// Creates a source over `cache`, which names repositories by path only ([`RepositoryName::local`]).
    #[must_use]
    pub fn new(cache: Arc<dyn ContentSource>) -> Self {
        Self { cache }
    }

    /// Returns the local name of `repository` in a cache.
    ///
    /// # Errors
    /// Returns `Unsupported` if the name cannot be encoded as a path.
    pub fn at_cache(repository: &RepositoryName) -> Result<RepositoryName, SourceError> {
        let attempted = || format!("encode {repository} as a repository of the cache");
        let unsupported = |error: Box<dyn std::error::Error + Send + Sync>| {
            SourceError::caused_by(SourceErrorKind::Unsupported, attempted(), error)
        };
        let path = repository.encoded().map_err(|error| unsupported(error.into()))?;
        RepositoryName::local(&path).map_err(|error| unsupported(error.into()))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentSource for EncodedNames {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        self.cache.resolve(&Self::at_cache(repository)?, at, freshness).await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        self.cache.manifest(&Self::at_cache(repository)?, at, freshness).await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        self.cache.blob_size(&Self::at_cache(repository)?, digest).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        self.cache.blob(&Self::at_cache(repository)?, digest, range).await
    }

    async fn blob_location(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        valid_for: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        self.cache.blob_location(&Self::at_cache(repository)?, digest, valid_for).await
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

    fn report_corrupt(&self, repository: &RepositoryName, digest: &Digest) {
        if let Ok(repository) = Self::at_cache(repository) {
            self.cache.report_corrupt(&repository, digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_cache_encodes_registry_and_port_into_local_path() {
        let at_cache = EncodedNames::at_cache;
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
