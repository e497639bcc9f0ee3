//! Assembles a complete registry: a store, pushes into it, who may, and where wanted a cache of other registries.

use std::sync::Arc;

use kuik_core::{
    content::{ContentSource, ContentStore, ManagedStore},
    reference::PortForms,
};
use kuik_proxy::{
    access::{AccessLayer, AccessPolicy, AccessService},
    pull_through::{PullThrough, PullThroughOptions},
    push::{RegistryMetrics, RegistryOptions, RegistryService},
    route::Names,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
};
use tower::Layer as _;

use crate::{cache::admin, frontend::Frontend};

/// A complete registry, ready to be served.
#[derive(Debug)]
pub struct Registry {
    /// Serves it.
    pub frontend: Frontend<AccessService<RegistryService>>,
    /// To be drained when serving has ended, where there is one.
    pub pull_through: Option<PullThrough>,
}

/// Where a registry gets what it does not have.
#[derive(Debug)]
pub struct Origins {
    /// Other registries.
    pub source: Arc<dyn ContentSource>,
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
}

/// A registry over `store`. With `origins` its repositories are those of other registries
/// (`docker.io/library/nginx`), and without them its own.
#[must_use]
pub fn registry(
    store: Kept,
    origins: Option<Origins>,
    access: AccessPolicy,
    options: RegistryOptions,
) -> Registry {
    let (metrics, proxy_metrics) = (RegistryMetrics::default(), ProxyMetrics::default());
    let Kept { pushed, fetched } = store;
    let mut proxy_options = ProxyOptions::default();
    let (source, pull_through): (Arc<dyn ContentSource>, _) = match origins {
        Some(Origins { source, options, ports }) => {
            proxy_options.names = Names::Upstream(ports);
            let pull_through = PullThrough::new(fetched, source, options);
            (Arc::new(pull_through.clone()), Some(pull_through))
        }
        None => {
            proxy_options.names = Names::Local;
            (pushed.clone(), None)
        }
    };
    let admin = admin("registry", pushed.clone(), |registry| {
        metrics.register(registry);
        proxy_metrics.register(registry);
    });
    let pull = ProxyService::new(source, proxy_options, proxy_metrics);
    let service = RegistryService::new(pushed, pull, pull_through.clone(), options, metrics);
    Registry { frontend: Frontend::new(admin, AccessLayer::new(access).layer(service)), pull_through }
}
