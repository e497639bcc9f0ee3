//! A pull-through cache: one store in front of other registries.

use std::sync::Arc;

use kuik_core::{
    client::RegistryClient,
    content::{ContentSource, ContentStore},
    reference::PortForms,
    trace::SpanSink,
};

use super::{
    frontend::{Frontend, Writable, admin, frontend},
    maintenance::StoreMaintenance,
};
use crate::{
    maintenance::quota::PullRecorder,
    pull_through::{PullThrough, PullThroughOptions},
    serve::Tls,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
};

/// A pull-through cache, ready to be served.
#[derive(Debug)]
pub struct PullThroughCache {
    /// The tower service.
    pub frontend: Frontend<ProxyService>,
    /// To be drained when serving has ended.
    pub pull_through: PullThrough,
}

/// Assembles a cache of what `upstream` has, in `store`. Nothing is ever removed from it: see
/// [`maintained_cache`].
///
/// `ports` says which spellings of registry ports are accepted in paths; `tls` is counted in the metrics if it is
/// served; `traces` receives the spans of requests.
#[must_use]
pub fn pull_through_cache(
    store: Arc<dyn ContentStore>,
    upstream: &RegistryClient,
    options: PullThroughOptions,
    ports: PortForms,
    tls: Option<&Tls>,
    traces: Option<Arc<dyn SpanSink>>,
) -> PullThroughCache {
    assemble(store, None, upstream, options, ports, tls, traces)
}

/// Assembles a cache of what `upstream` has, in the store of `maintenance`, which keeps to its size limit, collects
/// garbage and verifies what is stored.
///
/// The other arguments are those of [`pull_through_cache`]. The caller polls
/// [`StoreMaintenance::tasks`] with the returned cache as long as it serves, and awaits [`StoreMaintenance::end`]
/// after that.
#[must_use]
pub fn maintained_cache(
    maintenance: &StoreMaintenance,
    upstream: &RegistryClient,
    options: PullThroughOptions,
    ports: PortForms,
    tls: Option<&Tls>,
    traces: Option<Arc<dyn SpanSink>>,
) -> PullThroughCache {
    assemble(maintenance.fetched.clone(), Some(maintenance), upstream, options, ports, tls, traces)
}

fn assemble(
    store: Arc<dyn ContentStore>,
    maintenance: Option<&StoreMaintenance>,
    upstream: &RegistryClient,
    options: PullThroughOptions,
    ports: PortForms,
    tls: Option<&Tls>,
    traces: Option<Arc<dyn SpanSink>>,
) -> PullThroughCache {
    let pull_through = PullThrough::new(store.clone(), Arc::new(upstream.clone()), options);
    let metrics = ProxyMetrics::default();
    let admin = admin("proxy", vec![Box::new(Writable(store))], |registry| {
        metrics.register(registry);
        upstream.register(registry);
        if let Some(maintenance) = maintenance {
            maintenance.register(registry);
        }
        if let Some(tls) = tls {
            tls.register(registry);
        }
    });
    let options = ProxyOptions { names: ports.into(), ..ProxyOptions::default() };
    let mut source: Arc<dyn ContentSource> = Arc::new(pull_through.clone());
    if let Some(maintenance) = maintenance {
        source = Arc::new(PullRecorder::new(source, maintenance.pulls.clone()));
    }
    let service = ProxyService::new(source, options, metrics);
    PullThroughCache { frontend: frontend(admin, traces, service), pull_through }
}
