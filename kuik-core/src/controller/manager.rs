//! Controller manager: all controllers, as run by the leader.
//!
//! They share one watch per kind of object, one client and one index of image usage. All of it is created when
//! leadership is acquired and dropped when it ends: a replica that is not the leader holds no state.

use std::{fmt, sync::Arc};

use futures::join;
use kube_client::{Api, Client};
use kube_runtime::{reflector::Store, watcher};
use parking_lot::Mutex;

use super::{
    ApiEvents, Informer, PodImageController, SlimAccount,
    cached_image::{self, CachedImageController},
    pods::{PodImages, PodRules, PodTracker},
    repository::RepositoryController,
    retention::{ReportingCopier, RetentionReporter},
};
use crate::{
    copy::ImageCopier,
    crd::{CachedImage, Repository},
};

/// Number of objects per page of a list request.
const PAGE_SIZE: u32 = 100;

/// Runs all controllers.
pub struct Manager {
    rules: PodRules,
    copier: Arc<dyn ImageCopier>,
    options: cached_image::Options,
    instance: String,
    metrics: cached_image::Metrics,
    retention: Option<RetentionReporter>,
    view: Mutex<Option<View>>,
}

/// Read-only view of the leader's state, for metrics.
#[derive(Clone)]
#[non_exhaustive]
pub struct View {
    /// All CachedImages.
    pub images: Store<CachedImage>,
    /// All Repositories.
    pub repositories: Store<Repository>,
    /// All pods.
    pub pods: PodTracker,
}

impl Manager {
    /// Creates a manager that caches the images selected by `rules` through `copier`. `instance` names this process in
    /// events.
    #[must_use]
    pub fn new(
        rules: PodRules,
        copier: Arc<dyn ImageCopier>,
        options: cached_image::Options,
        instance: impl Into<String>,
    ) -> Self {
        let metrics = cached_image::Metrics::default();
        let (retention, view) = (None, Mutex::new(None));
        Self { rules, copier, options, instance: instance.into(), metrics, retention, view }
    }

    /// Counts images put into the cache and removed from it in `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: cached_image::Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Tells the cache through `retention` which images the cluster uses.
    #[must_use]
    pub fn with_retention(self, retention: RetentionReporter) -> Self {
        Self { retention: Some(retention), ..self }
    }

    /// Returns the current state; `None` if the controllers are not running.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        self.view.lock().clone()
    }

    /// Runs the controllers through `client` forever. Dropping the future stops all writes.
    pub async fn run(&self, client: Client) {
        let config = || watcher::Config::default().page_size(PAGE_SIZE);
        let (images, watch_images) = Informer::<CachedImage>::new(Api::all(client.clone()), config());
        let (repositories, watch_repositories) =
            Informer::<Repository>::new(Api::all(client.clone()), config());
        let (accounts, watch_accounts) = Informer::<SlimAccount>::new(Api::all(client.clone()), config());
        let pods = PodTracker::new(self.rules.clone());
        let (events, send_events) = ApiEvents::new(client.clone(), &*self.instance);
        let events = Arc::new(events);

        let pod_images = PodImageController::new(
            client.clone(),
            Arc::new(PodImages::new(pods.clone(), accounts.clone())),
            images.clone(),
            repositories.clone(),
        );
        let repository_controller = RepositoryController::new(
            client.clone(),
            repositories.clone(),
            images.clone(),
            accounts,
            pods.clone(),
            events.clone(),
        );
        let cached_images = CachedImageController::new(
            client.clone(),
            images.clone(),
            repositories.clone(),
            Arc::new(pods.clone()),
            self.copier(),
            self.options,
        )
        .with_events(events)
        .with_metrics(self.metrics.clone());

        let _published = self.publish(View {
            images: images.store(),
            repositories: repositories.store(),
            pods: pods.clone(),
        });
        join!(
            watch_images,
            watch_repositories,
            watch_accounts,
            pods.watch(client),
            send_events,
            pod_images.run(),
            repository_controller.run(),
            cached_images.run(std::future::pending()),
            self.report(images, pods.clone()),
        );
    }

    /// Returns the copier, which copies nothing before the cache knows about it.
    fn copier(&self) -> Arc<dyn ImageCopier> {
        match &self.retention {
            Some(reporter) => Arc::new(ReportingCopier::new(self.copier.clone(), reporter.clone())),
            None => self.copier.clone(),
        }
    }

    /// Reports to the cache which images the cluster uses, if that is wanted.
    async fn report(&self, images: Informer<CachedImage>, pods: PodTracker) {
        if let Some(reporter) = &self.retention {
            reporter.run(images, Arc::new(pods)).await;
        }
    }

    /// Publishes the view until the returned guard is dropped.
    fn publish(&self, view: View) -> impl Drop {
        struct Published<'a>(&'a Manager);
        impl Drop for Published<'_> {
            fn drop(&mut self) {
                *self.0.view.lock() = None;
            }
        }
        *self.view.lock() = Some(view);
        Published(self)
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("pods", &self.pods).finish_non_exhaustive()
    }
}
