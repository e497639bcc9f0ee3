//! Assembles a node's proxy: the cache's replicas first, the origin where they cannot help.

use std::sync::Arc;

use kuik_core::{reference::PortForms, registry::RegistryClient};
use kuik_proxy::{
    admin::Admin,
    chain::{Chain, Link, ReplicaSet, Role},
    server::Tls,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
};

use crate::{cache::admin, frontend::Frontend, upstream_metrics};

/// A proxy, ready to be served.
#[derive(Debug)]
pub struct Proxy {
    /// Serves it.
    pub frontend: Frontend<ProxyService>,
    /// Answers the operators' questions, for an address of their own.
    pub admin: Admin,
}

/// A proxy over `cache` and `origin`, which keeps nothing itself; `tls` is what it is served over, for its counters.
#[must_use]
pub fn proxy(cache: &ReplicaSet, origin: &RegistryClient, ports: PortForms, tls: Option<&Tls>) -> Proxy {
    let chain = Chain::new(vec![
        Link::new("cache", Role::Copy, Arc::new(cache.clone())),
        Link::new("origin", Role::Origin, Arc::new(origin.clone())),
    ]);
    let metrics = ProxyMetrics::default();
    let admin = admin("proxy", Vec::new(), |registry| {
        metrics.register(registry);
        cache.register(registry);
        upstream_metrics::register(origin, registry);
        if let Some(tls) = tls {
            tls.register(registry);
        }
    });
    let mut options = ProxyOptions::default();
    options.names = ports.into();
    let service = ProxyService::new(Arc::new(chain), options, metrics);
    Proxy { frontend: Frontend::new(admin.clone(), service), admin }
}
