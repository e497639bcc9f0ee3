//! The registry client: whatever the upstreams of a repository have, as a [`ContentSource`].
//!
//! The upstreams are asked in order ([`row`](super::row)); what each of them is asked is in [`at`](super::at).

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{
    HostLimits, HostReport, Timeouts,
    auth::Authenticator,
    avoided::Avoided,
    exchange::Exchange,
    hosts::Hosts,
    row::Wanted,
    transport::{RegistryTransport, erase},
    upstream::UpstreamResolver,
};
use crate::{
    content::{
        Blob, ByteRange, ContentSource, Descriptor, Digest, Freshness, Manifest, Referrers, Served,
        SourceError, TagList, TagOrDigest, TagPage,
    },
    credentials::CredentialProvider,
    reference::RepositoryName,
};

/// A client of any OCI registry. Cheap to clone; clones share connections, tokens and what they have learnt.
#[derive(Clone)]
pub struct RegistryClient {
    pub(super) resolver: Arc<dyn UpstreamResolver>,
    pub(super) exchange: Arc<Exchange>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) avoided: Arc<Avoided>,
    pub(super) tells_requests: bool,
}

impl RegistryClient {
    /// A client that sends its requests through `transport`, with the usual [`HostLimits`].
    pub fn new(
        transport: impl RegistryTransport,
        resolver: impl UpstreamResolver,
        credentials: impl CredentialProvider,
        timeouts: Timeouts,
    ) -> Self {
        Self::limited(transport, resolver, credentials, timeouts, HostLimits::default())
    }

    /// The same with other limits for what each host is asked.
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
            exchange: Arc::new(Exchange { transport: erase(transport), guard, timeouts, hosts }),
            authenticator: Arc::new(Authenticator::new(Arc::new(credentials))),
            avoided: Arc::default(),
            tells_requests: false,
        }
    }

    /// The same, which tells whom it asks for which request that is ([`RequestContext`](crate::trace::RequestContext)):
    /// for a cache of our own. Registries outside are told nothing of our clients.
    #[must_use]
    pub fn telling_requests(self) -> Self {
        Self { tells_requests: true, ..self }
    }

    /// What was seen of the hosts that were asked, for metrics: bounded in number, whatever is asked for.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostReport> {
        self.exchange.hosts.report()
    }
}

#[async_trait]
impl ContentSource for RegistryClient {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        let wanted = Wanted::Manifest(at);
        self.first(repository, wanted, |one| Box::pin(async move { one.resolve(at, freshness).await })).await
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        let wanted = Wanted::Manifest(at);
        self.first(repository, wanted, |one| Box::pin(async move { one.manifest(at, freshness).await })).await
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        let wanted = Wanted::Blob(digest);
        self.first(repository, wanted, |one| Box::pin(async move { one.blob_size(digest).await })).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
        let wanted = Wanted::Blob(digest);
        let avoided = &self.avoided;
        let ask = |one: super::at::At| -> futures::future::BoxFuture<'_, _> {
            Box::pin(
                async move { Ok(avoided.watch(one.upstream.base(), digest, one.blob(digest, range).await?)) },
            )
        };
        self.first(repository, wanted, ask).await
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        self.first(repository, Wanted::Lists, |one| Box::pin(async move { one.tags(page).await })).await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        let ask = |one: super::at::At| -> futures::future::BoxFuture<'_, _> {
            Box::pin(async move { one.referrers(digest, artifact_type).await })
        };
        self.first(repository, Wanted::Lists, ask).await
    }

    fn distrust(&self, _: &RepositoryName, digest: &Digest) {
        self.avoided.distrust(digest);
    }
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").field("resolver", &self.resolver).finish_non_exhaustive()
    }
}
