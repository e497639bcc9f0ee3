//! CachedImage controller: keeps every CachedImage in the cache as long as it is needed, and its status accurate.
//!
//! [`CachedImageController`] opens no watch itself. It takes shared [`Informer`]s of CachedImages and Repositories, a
//! shared [`Usage`], and an [`ImageCopier`] for the cache. Its decisions are [plans](plan::plan). Reconciling an
//! unchanged object sends no request to the API server. Copies and checks of the cache are background
//! [jobs](plan::Job), so that a slow pull delays nothing else.
//!
//! State between plans (failures, time of the last cache check) is in memory only. After a failover, each image costs
//! one check of the cache.

mod convert;
mod error;
mod events;
mod execute;
mod filters;
mod jobs;
mod metrics;
mod observe;
mod options;
mod patch;
pub mod plan;
mod progress;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, Stream, StreamExt as _, channel::mpsc, future, stream};
use jiff::Timestamp;
use kube_client::Client;
use kube_runtime::{
    controller::{Action, Config, Error, applier},
    reflector::ObjectRef,
};
use tokio::task::JoinSet;

pub use metrics::Metrics;
pub use options::Options;

use self::{
    error::ReconcileError,
    filters::Filters,
    jobs::{Jobs, Task},
    observe::View,
};
use super::{EventRecorder, Informer, NoEvents, Usage};
use crate::{
    controller::cached_image::plan::plan,
    copy::ImageCopier,
    crd::{CachedImage, Repository, cached_image_name, disambiguated, repository_label},
    reference::{ImageReference, RepositoryName},
};

/// Returns the current time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Number of concurrent reconciles. A reconcile is quick and waits only for the API server.
const MAX_CONCURRENT_RECONCILES: u16 = 16;
/// Debounce interval of reconcile requests for an object.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Delay before planning again after a write conflict.
const AFTER_CONFLICT: Duration = Duration::from_millis(250);
/// Delay before planning again after an error.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// Maximum time between reconciles of an object: timers do not notice clock jumps.
const MAX_REQUEUE: Duration = Duration::from_secs(300);

/// Reconciles CachedImages.
#[derive(Clone)]
pub struct CachedImageController {
    client: Client,
    images: Informer<CachedImage>,
    repositories: Informer<Repository>,
    usage: Arc<dyn Usage>,
    copier: Arc<dyn ImageCopier>,
    events: Arc<dyn EventRecorder>,
    metrics: Metrics,
    clock: Clock,
    options: Options,
}

/// Dependencies of a reconcile.
struct Context {
    client: Client,
    images: Informer<CachedImage>,
    repositories: Informer<Repository>,
    usage: Arc<dyn Usage>,
    events: Arc<dyn EventRecorder>,
    metrics: Metrics,
    clock: Clock,
    options: Options,
    jobs: Jobs,
    filters: Filters,
}

impl CachedImageController {
    /// Creates a controller that writes through `client` and records no events.
    #[must_use]
    pub fn new(
        client: Client,
        images: Informer<CachedImage>,
        repositories: Informer<Repository>,
        usage: Arc<dyn Usage>,
        copier: Arc<dyn ImageCopier>,
        options: Options,
    ) -> Self {
        let (events, metrics, clock) = (Arc::new(NoEvents), Metrics::default(), Arc::new(Timestamp::now));
        Self { client, images, repositories, usage, copier, events, metrics, clock, options }
    }

    /// Records events in `events`.
    #[must_use]
    pub fn with_events(self, events: Arc<dyn EventRecorder>) -> Self {
        Self { events, ..self }
    }

    /// Counts in `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Replaces the clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Reconciles CachedImages until `shutdown` resolves. Then running jobs are canceled and nothing more is written. A
    /// leader passes the end of its lease.
    ///
    /// Jobs are tasks of the runtime that polls this future; they end with it.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let (tasks, to_run) = mpsc::unbounded();
        let (changed, ended) = mpsc::unbounded();
        let copies = self.options.max_concurrent_copies;
        let jobs = Jobs::new(self.copier.clone(), self.clock.clone(), copies, tasks, changed);
        // Wait until Repositories are synced: otherwise one not yet received would be created again.
        let repositories = self.repositories.store();
        let known = async move { repositories.wait_until_ready().await.is_ok() };
        let triggers = stream::select(self.triggers(), ended);
        let queue =
            known.map(|known| stream::iter(known.then_some(triggers)).flatten()).flatten_stream().boxed();
        let store = self.images.store();
        let context = Arc::new(Context {
            client: self.client,
            images: self.images,
            repositories: self.repositories,
            usage: self.usage,
            events: self.events,
            metrics: self.metrics,
            clock: self.clock,
            options: self.options,
            jobs,
            filters: Filters::default(),
        });
        let reconciling = applier(
            |object, context| reconcile(object, context).boxed(),
            |_, error, _| Action::requeue(if error.is_conflict() { AFTER_CONFLICT } else { AFTER_ERROR }),
            context.clone(),
            store,
            queue.map(Ok::<_, std::convert::Infallible>),
            Config::default().debounce(DEBOUNCE).concurrency(MAX_CONCURRENT_RECONCILES),
        );
        let reconciling = reconciling.for_each(|reconciled| {
            settle(&context, reconciled);
            future::ready(())
        });
        tokio::select! {
            () = shutdown => {}
            () = reconciling => {}
            () = run_all(to_run) => {}
        }
    }

    /// Returns the objects to reconcile because they or something they depend on has changed.
    fn triggers(&self) -> impl Stream<Item = ObjectRef<CachedImage>> + Send + use<> {
        let of_repositories = {
            let (images, repositories) = (self.images.store(), self.repositories.store());
            self.repositories.changes().flat_map(move |repository| {
                let name = repositories
                    .get(&repository)
                    .and_then(|object| object.spec.name.parse::<RepositoryName>().ok());
                let label = name.map_or_else(|| repository.name.clone(), |name| repository_label(&name));
                let of_it = |image: &CachedImage| {
                    let labels = image.metadata.labels.as_ref();
                    labels
                        .and_then(|labels| labels.get(crate::crd::REPOSITORY_LABEL))
                        .is_none_or(|found| *found == label)
                };
                stream::iter(images.state_filter(of_it)).map(|image| ObjectRef::from_obj(&*image)).boxed()
            })
        };
        let images = self.images.store();
        let of_usage = self.usage.changes().flat_map(move |image| match image {
            None => stream::iter(images.state()).map(|image| ObjectRef::from_obj(&*image)).boxed(),
            Some(image) => stream::iter(names(&image)).map(|name| ObjectRef::new(&name)).boxed(),
        });
        stream::select(self.images.changes(), stream::select(of_repositories, of_usage))
    }
}

/// Returns the possible names of the object of an image.
fn names(image: &str) -> Vec<String> {
    let name = ImageReference::parse(image).map(|reference| cached_image_name(&reference));
    name.into_iter().chain([disambiguated(image)]).collect()
}

/// Runs tasks as they arrive, until the sender is dropped.
async fn run_all(mut to_run: mpsc::UnboundedReceiver<Task>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            task = to_run.next() => match task {
                Some(task) => { running.spawn(task); }
                None => return,
            },
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "job task ended unexpectedly");
                }
            }
        }
    }
}

async fn reconcile(object: Arc<CachedImage>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let now = (context.clock)();
    let (images, repositories) = (context.images.store(), context.repositories.store());
    let view = View {
        images: &images,
        repositories: &repositories,
        usage: &*context.usage,
        jobs: &context.jobs,
        filters: &context.filters,
        options: &context.options,
    };
    let snapshot = view.observe(&object, now);
    let steps = plan(&snapshot.observed, now);
    let wake = execute::execute(&context, &object, &snapshot, steps, now).await?;
    let rest = wake.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    Ok(Action::requeue(rest.unwrap_or(MAX_REQUEUE).min(MAX_REQUEUE)))
}

type Reconciled = Result<(ObjectRef<CachedImage>, Action), Error<ReconcileError, std::convert::Infallible>>;

fn settle(context: &Context, reconciled: Reconciled) {
    match reconciled {
        Ok(_) => {}
        Err(Error::ObjectNotFound(object)) => context.jobs.forget(&object.name),
        Err(Error::ReconcilerFailed(error, _)) if error.is_conflict() => {
            tracing::debug!(error = &error as &dyn std::error::Error, "write conflict, planning again");
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "reconcile failed, retrying");
        }
    }
}

impl std::fmt::Debug for CachedImageController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedImageController").field("options", &self.options).finish_non_exhaustive()
    }
}
