//! Assembles a complete registry: a store, pushes into it, who may, and where wanted a cache of other registries.

use std::{sync::Arc, time::Duration};

use kuik_core::{
    content::{ContentSource, ContentStore, ManagedStore},
    reference::PortForms,
    registry::RegistryClient,
};
use kuik_proxy::{
    access::{AccessLayer, AccessPolicy, AccessService},
    gc::{Announcements, GcService},
    pull_through::{PullThrough, PullThroughOptions},
    push::{RegistryMetrics, RegistryOptions, RegistryService},
    quota::{MarksService, Recorded},
    route::Names,
    server::Tls,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
};
use tower::Layer as _;

use crate::{
    cache::{Writable, admin},
    frontend::Frontend,
    keeping::Keeping,
    upstream_metrics,
};

/// How long the URLs are good for that clients are sent to: as with Docker's registry, and shorter than the grace period
/// of garbage collection.
const REDIRECTS_VALID_FOR: Duration = Duration::from_secs(20 * 60);

/// A complete registry, ready to be served.
#[derive(Debug)]
pub struct Registry {
    /// Serves it.
    pub frontend: Frontend<AccessService<GcService<MarksService<RegistryService>>>>,
    /// To be drained when serving has ended, where there is one.
    pub pull_through: Option<PullThrough>,
    /// What keeps its store; its tasks are to run as long as the registry serves.
    pub keeping: Keeping,
}

/// Where a registry gets what it does not have.
#[derive(Debug)]
pub struct Origins {
    /// Other registries.
    pub source: RegistryClient,
    /// How they are asked.
    pub options: PullThroughOptions,
    /// Which spellings of their ports are read in paths.
    pub ports: PortForms,
}

/// The store of a registry.
#[derive(Debug, Clone)]
pub struct Kept {
    /// For what is pushed.
    pub pushed: Arc<dyn ManagedStore>,
    /// The same store for what can be fetched again.
    pub fetched: Arc<dyn ContentStore>,
    /// Whether clients get blobs from where the store keeps them, where it can say where that is.
    pub redirects: bool,
    /// Where the processes that share the store tell one another what they remove; `None` where it is this one's alone.
    pub announcements: Option<Arc<dyn Announcements>>,
}

/// A registry over the store of `keeping`. With `origins` its repositories are those of other registries
/// (`docker.io/library/nginx`), and without them its own. `tls` is what it is served over, for its
/// counters.
#[must_use]
pub fn registry(
    keeping: Keeping,
    origins: Option<Origins>,
    access: AccessPolicy,
    options: RegistryOptions,
    tls: Option<&Tls>,
) -> Registry {
    let (metrics, proxy_metrics) = (RegistryMetrics::default(), ProxyMetrics::default());
    let (pushed, fetched) = (keeping.pushed.clone(), keeping.fetched.clone());
    let mut proxy_options = ProxyOptions::default();
    proxy_options.redirects = keeping.redirects.then_some(REDIRECTS_VALID_FOR);
    let client = origins.as_ref().map(|origins| origins.source.clone());
    let (source, pull_through): (Arc<dyn ContentSource>, _) = match origins {
        Some(Origins { source, options, ports }) => {
            proxy_options.names = Names::Upstream(ports);
            let pull_through = PullThrough::new(fetched, Arc::new(source), options);
            (Arc::new(pull_through.clone()), Some(pull_through))
        }
        None => {
            proxy_options.names = Names::Local;
            (Arc::new(pushed.clone()), None)
        }
    };
    let admin = admin("registry", vec![Box::new(Writable(Arc::new(pushed.clone())))], |registry| {
        metrics.register(registry);
        proxy_metrics.register(registry);
        keeping.register(registry);
        if let Some(client) = &client {
            upstream_metrics::register(client, registry);
        }
        if let Some(tls) = tls {
            tls.register(registry);
        }
    });
    let names = proxy_options.names;
    let source = Arc::new(Recorded::new(source, keeping.pulls.clone()));
    let pull = ProxyService::new(source, proxy_options, proxy_metrics);
    let service = RegistryService::new(pushed.clone(), pull, pull_through.clone(), options, metrics);
    let service = MarksService::new(Arc::new(pushed), names, service);
    let service = keeping.collecting(pull_through.clone(), service);
    let frontend = Frontend::new(admin, AccessLayer::new(access).layer(service));
    Registry { frontend, pull_through, keeping }
}
