//! OCI registry client as a [`ContentSource`].
//!
//! Upstreams are tried in order ([`fallback`](super::fallback)); the requests to each are in
//! [`endpoint`](super::api::endpoint).

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{
    HostLimits, HostReport, Timeouts,
    auth::Authenticator,
    fallback::Wanted,
    hosts::{Hosts, corrupt_sources::CorruptSources},
    transport::{RegistryTransport, erase, sender::HttpSender},
    upstreams::upstream::UpstreamResolver,
};
use crate::{
    content::{
        Blob, ByteRange, Cached, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers,
        SourceError, TagList, TagOrDigest, TagPage,
    },
    credentials::CredentialProvider,
    reference::RepositoryName,
    retention::ClusterId,
};

/// A client of any OCI registry. Cheap to clone; clones share connections, tokens and host state.
#[derive(Clone)]
pub struct RegistryClient {
    pub(super) resolver: Arc<dyn UpstreamResolver>,
    pub(super) sender: Arc<HttpSender>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) corrupt: Arc<CorruptSources>,
    pub(super) propagates_context: bool,
    pub(super) cluster: Option<ClusterId>,
}

impl RegistryClient {
    /// Returns a client that sends requests through `transport`, with the default [`HostLimits`].
    pub fn new(
        transport: impl RegistryTransport,
        resolver: impl UpstreamResolver,
        credentials: impl CredentialProvider,
        timeouts: Timeouts,
    ) -> Self {
        Self::limited(transport, resolver, credentials, timeouts, HostLimits::default())
    }

    /// Like [`new`](Self::new), with explicit per-host limits.
    pub fn limited(
        transport: impl RegistryTransport,
        resolver: impl UpstreamResolver,
        credentials: impl CredentialProvider,
        timeouts: Timeouts,
        limits: HostLimits,
    ) -> Self {
        let guard = resolver.guard();
        let hosts = Hosts::new(limits, guard.clone());
        Self {
            resolver: Arc::new(resolver),
            sender: Arc::new(HttpSender { transport: erase(transport), guard, timeouts, hosts }),
            authenticator: Arc::new(Authenticator::new(Arc::new(credentials))),
            corrupt: Arc::default(),
            propagates_context: false,
            cluster: None,
        }
    }

    /// Propagates the current [`RequestContext`](crate::trace::RequestContext) (request id and trace) in request
    /// headers. Use it only for kuik's own cache: external registries must not learn about our clients.
    #[must_use]
    pub fn propagating_context(self) -> Self {
        Self { propagates_context: true, ..self }
    }

    /// Names the cluster in deletions, so that the cache keeps what other clusters need.
    #[must_use]
    pub fn for_cluster(self, cluster: ClusterId) -> Self {
        Self { cluster: Some(cluster), ..self }
    }

    /// Returns per-host statistics for metrics. The number of reports is bounded for any input.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostReport> {
        self.sender.hosts.report()
    }
}

#[async_trait]
impl ContentSource for RegistryClient {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        let wanted = Wanted::Manifest(at);
        self.first_success(repository, wanted, |endpoint| {
            Box::pin(async move { endpoint.resolve(at, freshness).await })
        })
        .await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        let wanted = Wanted::Manifest(at);
        self.first_success(repository, wanted, |endpoint| {
            Box::pin(async move { endpoint.manifest(at, freshness).await })
        })
        .await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        let wanted = Wanted::Blob(digest);
        self.first_success(repository, wanted, |endpoint| {
            Box::pin(async move { endpoint.blob_size(digest).await })
        })
        .await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        let wanted = Wanted::Blob(digest);
        let corrupt = &self.corrupt;
        let send = |endpoint: super::api::endpoint::RepositoryEndpoint| -> futures::future::BoxFuture<'_, _> {
            Box::pin(async move {
                Ok(corrupt.watch(endpoint.upstream.base(), digest, endpoint.blob(digest, range).await?))
            })
        };
        self.first_success(repository, wanted, send).await
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        self.first_success(repository, Wanted::Lists, |endpoint| {
            Box::pin(async move { endpoint.tags(page).await })
        })
        .await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        let send = |endpoint: super::api::endpoint::RepositoryEndpoint| -> futures::future::BoxFuture<'_, _> {
            Box::pin(async move { endpoint.referrers(digest, artifact_type).await })
        };
        self.first_success(repository, Wanted::Lists, send).await
    }

    fn report_corrupt(&self, _: &RepositoryName, digest: &Digest) {
        self.corrupt.report_corrupt(digest);
    }
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").field("resolver", &self.resolver).finish_non_exhaustive()
    }
}
