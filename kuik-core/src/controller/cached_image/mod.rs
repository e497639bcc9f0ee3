//! Every CachedImage is in the cache for as long as it is needed, and its status says the truth.
//!
//! [`Reconciler`] watches nothing itself: it is given [`Informer`]s of CachedImages and Repositories and a [`Usage`],
//! which others share, and an [`ImageCopier`] that knows the cache. What is to be done is
//! [planned](crate::plan::plan); a reconcile of an unchanged object reads nothing from the API server and writes
//! nothing. Copies and looks into the cache are [jobs](crate::plan::Job) that go on beside, so that a slow pull holds up
//! nothing else.
//!
//! What is remembered between plans (failures, when the cache was last looked into) is lost with the process, and costs a
//! look into the cache for each image when another takes over.

mod convert;
mod error;
mod execute;
mod filters;
mod jobs;
mod metrics;
mod observe;
mod options;
mod patch;
mod tell;

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
    copy::ImageCopier,
    crd::{CachedImage, Repository, cached_image_name, disambiguated, repository_label},
    plan::plan,
    reference::{ImageReference, RepositoryName},
};

/// Says what time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How many objects are planned for at a time. A plan is quick, and waits for the API server alone.
const AT_A_TIME: u16 = 16;
/// How long requests to look at an object are gathered.
const GATHER: Duration = Duration::from_millis(50);
/// After how long a plan that somebody else's write came between is made again.
const AFTER_CONFLICT: Duration = Duration::from_millis(250);
/// After how long a plan that could not be carried out is made again.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// How long an object is left alone at most: clocks jump, and a timer does not see it.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Looks after CachedImages.
#[derive(Clone)]
pub struct Reconciler {
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

/// What carrying out a plan needs.
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
        let (events, metrics, clock) = (Arc::new(NoEvents), Metrics::default(), Arc::new(Timestamp::now));
        Self { client, images, repositories, usage, copier, events, metrics, clock, options }
    }

    /// The same, with events that go to `events`.
    #[must_use]
    pub fn with_events(self, events: Arc<dyn EventRecorder>) -> Self {
        Self { events, ..self }
    }

    /// The same, counting in `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// The same, with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Looks after CachedImages until `shutdown` resolves: then what is going on is abandoned, and nothing is written
    /// any more. A leader gives the end of its lease.
    ///
    /// Jobs are tasks of the runtime that this is polled on; they end with it.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let (tasks, to_run) = mpsc::unbounded();
        let (changed, ended) = mpsc::unbounded();
        let copies = self.options.max_concurrent_copies;
        let jobs = Jobs::new(self.copier.clone(), self.clock.clone(), copies, tasks, changed);
        // Not before Repositories are known: one that is only not seen yet would be made once more.
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
            Config::default().debounce(GATHER).concurrency(AT_A_TIME),
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

    /// Names objects that are to be looked at, because they or what they depend on has changed.
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

/// The names that the object of an image can have.
fn names(image: &str) -> Vec<String> {
    let name = ImageReference::parse(image).map(|reference| cached_image_name(&reference));
    name.into_iter().chain([disambiguated(image)]).collect()
}

/// Runs tasks as they come, until nobody is there to give any.
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
                    tracing::error!(%error, "a job ended in an unexpected way");
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
    let sight = view.look(&object, now);
    let steps = plan(&sight.observed, now);
    let wake = execute::execute(&context, &object, &sight, steps, now).await?;
    let rest = wake.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    Ok(Action::requeue(rest.unwrap_or(LONGEST_REST).min(LONGEST_REST)))
}

type Reconciled = Result<(ObjectRef<CachedImage>, Action), Error<ReconcileError, std::convert::Infallible>>;

fn settle(context: &Context, reconciled: Reconciled) {
    match reconciled {
        Ok(_) => {}
        Err(Error::ObjectNotFound(object)) => context.jobs.forget(&object.name),
        Err(Error::ReconcilerFailed(error, _)) if error.is_conflict() => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "somebody else was quicker: it is planned again"
            );
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a plan could not be carried out: it is made again"
            );
        }
    }
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").field("options", &self.options).finish_non_exhaustive()
    }
}
