//! Copier decorator: an image is reported to the cache before it is copied.

use std::sync::Arc;

use async_trait::async_trait;

use super::RetentionReporter;
use crate::{
    content::Digest,
    copy::{Copied, CopyError, ImageCopier, Progress, SourceImage, Verdict},
};

/// Copies an image after [`RetentionReporter::ensure`] has reported it.
#[derive(Debug)]
pub struct ReportingCopier {
    copier: Arc<dyn ImageCopier>,
    reporter: RetentionReporter,
}

impl ReportingCopier {
    /// Wraps `copier`.
    #[must_use]
    pub fn new(copier: Arc<dyn ImageCopier>, reporter: RetentionReporter) -> Self {
        Self { copier, reporter }
    }
}

#[async_trait]
impl ImageCopier for ReportingCopier {
    async fn resolve_upstream(&self, image: &SourceImage) -> Result<Digest, CopyError> {
        self.copier.resolve_upstream(image).await
    }

    async fn copy(&self, image: &SourceImage, progress: &dyn Progress) -> Result<Copied, CopyError> {
        self.reporter.ensure(image).await;
        self.copier.copy(image, progress).await
    }

    async fn verify(&self, image: &SourceImage) -> Result<Verdict, CopyError> {
        self.copier.verify(image).await
    }

    async fn remove(&self, image: &SourceImage) -> Result<(), CopyError> {
        self.copier.remove(image).await
    }
}
