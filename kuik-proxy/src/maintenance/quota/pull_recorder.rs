//! Source decorator that records pulls of manifests.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use kuik_core::{
    content::{Cached, ContentSource, Freshness, Manifest, SourceError, TagOrDigest},
    forward,
    reference::RepositoryName,
};

use super::Pulls;

/// Source whose manifests count as pulled when they are served.
#[derive(Debug, Clone)]
pub struct PullRecorder<S> {
    source: S,
    pulls: Arc<Pulls>,
}

impl<S> PullRecorder<S> {
    /// Wraps `source`, recording its pulls in `pulls`.
    pub fn new(source: S, pulls: Arc<Pulls>) -> Self {
        Self { source, pulls }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ContentSource> ContentSource for PullRecorder<S> {
    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        let served = self.source.manifest(repository, at, freshness).await?;
        self.pulls.record(repository, served.content.digest(), SystemTime::now());
        Ok(served)
    }

    forward!(this => &this.source; resolve, blob_size, blob, blob_location, tags, referrers, report_corrupt);
}
