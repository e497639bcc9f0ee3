//! All controllers of kuik as one: what the leader runs.
//!
//! They share one watch of each kind of objects, one client and one idea of which pods use what. What they know is made
//! when the lead is taken and dropped when it ends: a replica that does not lead holds nothing.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::join;
use kube_client::{Api, Client};
use kube_runtime::{reflector::Store, watcher};

use super::{
    ApiEvents, Informer, KeptImages, SlimAccount,
    cached_image::{self, Reconciler},
    pods::{PodRules, PodTracker},
    repository::Repositories,
};
use crate::{
    copy::ImageCopier,
    crd::{CachedImage, Repository},
};

/// How many objects one answer of a list has.
const PAGE_SIZE: u32 = 100;

/// All controllers.
pub struct Controllers {
    rules: PodRules,
    copier: Arc<dyn ImageCopier>,
    options: cached_image::Options,
    instance: String,
    metrics: cached_image::Metrics,
    view: Mutex<Option<View>>,
}

/// What the leader knows, for who counts it.
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

impl Controllers {
    /// Controllers that keep the images that `rules` want, in the cache of `copier`; `instance` is the name of this
    /// process, for events.
    #[must_use]
    pub fn new(
        rules: PodRules,
        copier: Arc<dyn ImageCopier>,
        options: cached_image::Options,
        instance: impl Into<String>,
    ) -> Self {
        let metrics = cached_image::Metrics::default();
        Self { rules, copier, options, instance: instance.into(), metrics, view: Mutex::new(None) }
    }

    /// The same, counting in `metrics` what is put into the cache and removed from it.
    #[must_use]
    pub fn with_metrics(self, metrics: cached_image::Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// What is known now; `None` where nothing runs.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs them through `client`, for ever. When it is dropped, nothing is written any more.
    pub async fn run(&self, client: Client) {
        let config = || watcher::Config::default().page_size(PAGE_SIZE);
        let (images, watch_images) = Informer::<CachedImage>::new(Api::all(client.clone()), config());
        let (repositories, watch_repositories) =
            Informer::<Repository>::new(Api::all(client.clone()), config());
        let (accounts, watch_accounts) = Informer::<SlimAccount>::new(Api::all(client.clone()), config());
        let pods = PodTracker::new(self.rules.clone());
        let (events, send_events) = ApiEvents::new(client.clone(), &*self.instance);
        let events = Arc::new(events);

        let kept = KeptImages::new(
            client.clone(),
            pods.clone(),
            accounts.clone(),
            images.clone(),
            repositories.clone(),
        );
        let of_repositories = Repositories::new(
            client.clone(),
            repositories.clone(),
            images.clone(),
            accounts,
            pods.clone(),
            events.clone(),
        );
        let of_images = Reconciler::new(
            client.clone(),
            images.clone(),
            repositories.clone(),
            Arc::new(pods.clone()),
            self.copier.clone(),
            self.options,
        )
        .with_events(events)
        .with_metrics(self.metrics.clone());

        let _shown = self.show(View {
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
            kept.run(),
            of_repositories.run(),
            of_images.run(std::future::pending()),
        );
    }

    /// Shows the view until what is returned is dropped.
    fn show(&self, view: View) -> impl Drop {
        struct Shown<'a>(&'a Controllers);
        impl Drop for Shown<'_> {
            fn drop(&mut self) {
                *self.0.view.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Some(view);
        Shown(self)
    }
}

impl fmt::Debug for Controllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controllers").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("pods", &self.pods).finish_non_exhaustive()
    }
}
