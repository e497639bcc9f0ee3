//! A complete registry: a store, pushes, access control, maintenance endpoints, and optionally a pull-through cache.

use std::{sync::Arc, time::Duration};

use kuik_core::{client::RegistryClient, content::ContentSource, reference::PortForms, trace::SpanSink};
use tower::ServiceBuilder;

use super::{
    frontend::{Frontend, Writable, admin, frontend},
    maintenance::StoreMaintenance,
};
use crate::{
    maintenance::{
        gc::GcService,
        quota::{CapacityService, PullRecorder},
        retention::{RetentionLayer, RetentionService},
    },
    pull_through::{PullThrough, PullThroughOptions},
    registry::{
        access::{AccessLayer, AccessPolicy, AccessService},
        push::{RegistryMetrics, RegistryOptions, RegistryService},
    },
    route::Names,
    serve::Tls,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
};

/// Lifetime of the URLs that clients are redirected to: as with Docker's registry, and shorter than the grace period
/// of garbage collection.
const REDIRECT_LIFETIME: Duration = Duration::from_secs(20 * 60);

/// A complete registry, ready to be served.
#[derive(Debug)]
pub struct Registry {
    /// The tower service.
    pub frontend: Frontend<AccessService<GcService<CapacityService<RetentionService<RegistryService>>>>>,
    /// To be drained when serving has ended; `None` without [`Origins`].
    pub pull_through: Option<PullThrough>,
    /// Maintenance of the store. Its tasks are to run as long as the registry serves.
    pub maintenance: StoreMaintenance,
}

/// The upstreams from which a registry fetches missing content.
#[derive(Debug)]
pub struct Origins {
    /// Client of the origin registries.
    pub source: RegistryClient,
    /// Freshness and limits of the pull-through cache.
    pub options: PullThroughOptions,
    /// Spellings of registry ports that are accepted in paths.
    pub ports: PortForms,
}

/// Assembles a registry over the store of `maintenance`.
///
/// With `origins` its repositories are those of other registries (`docker.io/library/nginx`), and without them its
/// own. `tls` is counted in the metrics if it is served; `traces` receives the spans of requests.
#[must_use]
pub fn registry(
    maintenance: StoreMaintenance,
    origins: Option<Origins>,
    access: AccessPolicy,
    options: RegistryOptions,
    tls: Option<&Tls>,
    traces: Option<Arc<dyn SpanSink>>,
) -> Registry {
    let (metrics, proxy_metrics) = (RegistryMetrics::default(), ProxyMetrics::default());
    let (pushed, fetched) = (maintenance.pushed.clone(), maintenance.fetched.clone());
    let redirects = maintenance.redirects.then_some(REDIRECT_LIFETIME);
    let mut proxy_options = ProxyOptions { redirects, ..ProxyOptions::default() };
    let client = origins.as_ref().map(|origins| origins.source.clone());
    let (source, pull_through): (Arc<dyn ContentSource>, _) = match origins {
        Some(Origins { source, options, ports }) => {
            proxy_options.names = Names::Upstream(ports);
            // Tags of CachedImages are refreshed by the controllers, all others by revalidation.
            let managed = Arc::new(maintenance.retention.clone());
            let pull_through = PullThrough::with_managed_tags(fetched, Arc::new(source), options, managed);
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
        maintenance.register(registry);
        if let Some(client) = &client {
            client.register(registry);
        }
        if let Some(tls) = tls {
            tls.register(registry);
        }
    });
    let names = proxy_options.names;
    let source = Arc::new(PullRecorder::new(source, maintenance.pulls.clone()));
    let pull = ProxyService::new(source, proxy_options, proxy_metrics);
    let service = ServiceBuilder::new()
        // Authorization comes before everything that reads or changes the store.
        .layer(AccessLayer::new(access))
        // Requests for a collection, at a path that is no repository.
        .layer(maintenance.gc_layer(pull_through.clone()))
        // Whether the store has room, at a path that is no repository either.
        .layer(maintenance.capacity_layer())
        // Retention documents of clusters, and deletions that they forbid.
        .layer(RetentionLayer::new(maintenance.retention.clone(), names))
        .service(RegistryService::new(pushed, pull, pull_through.clone(), options, metrics));
    Registry { frontend: frontend(admin, traces, service), pull_through, maintenance }
}
