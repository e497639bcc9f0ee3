//! A source that remembers which manifests it has served, and when.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use kuik_core::{
    content::{ContentSource, Freshness, Manifest, Served, SourceError, TagOrDigest},
    forward,
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

    forward!(this => &this.source; resolve, blob_size, blob, blob_location, tags, referrers);
}
