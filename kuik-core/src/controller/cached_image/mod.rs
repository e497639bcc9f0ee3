//! Every CachedImage is in the cache for as long as it is needed, and its status says the truth.
//!
//! [`Reconciler`] watches nothing itself: it is given [`Informer`]s of CachedImages and Repositories and a [`Usage`],
//! which others share, and an [`ImageCopier`] that knows the cache. What is to be done is
//! [`plan`](crate::plan)ned; a reconcile of an unchanged object reads nothing from the API server and writes nothing.

mod options;

use std::sync::Arc;

use kube_client::Client;

pub use options::Options;

use super::{EventRecorder, Informer, NoEvents, Usage};
use crate::{
    copy::ImageCopier,
    crd::{CachedImage, Repository},
};

/// Looks after CachedImages.
#[derive(Clone)]
#[allow(dead_code, reason = "what is carried out comes with the executor")]
pub struct Reconciler {
    client: Client,
    images: Informer<CachedImage>,
    repositories: Informer<Repository>,
    usage: Arc<dyn Usage>,
    copier: Arc<dyn ImageCopier>,
    events: Arc<dyn EventRecorder>,
    options: Options,
}

impl Reconciler {
    /// A reconciler that writes through `client`, and tells nobody of events.
    #[must_use]
    pub fn new(
        client: Client,
        images: Informer<CachedImage>,
        repositories: Informer<Repository>,
        usage: Arc<dyn Usage>,
        copier: Arc<dyn ImageCopier>,
        options: Options,
    ) -> Self {
        Self { client, images, repositories, usage, copier, events: Arc::new(NoEvents), options }
    }

    /// The same, with events that go to `events`.
    #[must_use]
    pub fn with_events(self, events: Arc<dyn EventRecorder>) -> Self {
        Self { events, ..self }
    }

    /// Looks after CachedImages until `shutdown` resolves: then what is going on is abandoned, and nothing is written
    /// any more. A leader gives the end of its lease.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        shutdown.await;
    }
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").field("options", &self.options).finish_non_exhaustive()
    }
}
