//! Options of the webhook: rewriter, pod selection, paths, metrics.

use kube_core::Selector;
use kuik_core::rewrite::Rewriter;

use super::{filter::PodFilter, metrics::AdmissionMetrics};

/// Default path of pod reviews.
pub const POD_PATH: &str = "/mutate-core-v1-pod";

/// Default path of CachedImage reviews.
pub const CACHED_IMAGE_PATH: &str = "/mutate-kuik-enix-io-v1alpha1-cachedimage";

/// Options of an [`AdmissionService`](super::AdmissionService).
#[derive(Debug, Clone)]
pub struct AdmissionOptions {
    pub(super) rewriter: Rewriter,
    pub(super) filter: PodFilter,
    pub(super) metrics: AdmissionMetrics,
    pub(super) pod_path: String,
    pub(super) cached_image_path: String,
}

impl AdmissionOptions {
    /// Rewrites the images of all pods outside kube-system with `rewriter`, and serves the default paths.
    #[must_use]
    pub fn new(rewriter: Rewriter) -> Self {
        Self {
            rewriter,
            filter: PodFilter::default(),
            metrics: AdmissionMetrics::default(),
            pod_path: POD_PATH.to_owned(),
            cached_image_path: CACHED_IMAGE_PATH.to_owned(),
        }
    }

    /// Skips the pods of `namespaces`, in addition to kube-system. The namespace of the webhook should be among them.
    #[must_use]
    pub fn with_ignored_namespaces<N: Into<String>>(
        mut self,
        namespaces: impl IntoIterator<Item = N>,
    ) -> Self {
        self.filter.ignored = namespaces.into_iter().map(Into::into).collect();
        self
    }

    /// Skips pods that do not match `selector`: a second check after the `objectSelector` of the webhook configuration.
    #[must_use]
    pub fn with_selector(mut self, selector: Selector) -> Self {
        self.filter.selector = selector;
        self
    }

    /// Counts in `metrics` instead of a new set that is not registered anywhere.
    #[must_use]
    pub fn with_metrics(self, metrics: AdmissionMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Sets the path of pod reviews (default: [`POD_PATH`]).
    #[must_use]
    pub fn with_pod_path(self, path: impl Into<String>) -> Self {
        Self { pod_path: path.into(), ..self }
    }

    /// Sets the path of CachedImage reviews (default: [`CACHED_IMAGE_PATH`]).
    #[must_use]
    pub fn with_cached_image_path(self, path: impl Into<String>) -> Self {
        Self { cached_image_path: path.into(), ..self }
    }
}
