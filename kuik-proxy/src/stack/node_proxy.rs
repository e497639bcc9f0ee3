//! A node's proxy: cache replicas first, then the origin registry. It stores nothing.

use std::sync::Arc;

use kuik_core::{client::RegistryClient, reference::PortForms, trace::SpanSink};

use super::frontend::{Frontend, admin, frontend};
use crate::{
    chain::{CacheReplicas, Chain, Link, Role},
    serve::{Tls, admin::Admin},
    service::{ProxyMetrics, ProxyOptions, ProxyService},
};

/// A node proxy, ready to be served.
#[derive(Debug)]
pub struct NodeProxy {
    /// The tower service.
    pub frontend: Frontend<ProxyService>,
    /// Health checks and metrics, for a listener of their own.
    pub admin: Admin,
}

/// Assembles a proxy over `cache`, with `origin` as the fallback.
///
/// The caller polls [`CacheReplicas::maintain`] while the proxy serves.
#[must_use]
pub fn node_proxy(
    cache: &CacheReplicas,
    origin: &RegistryClient,
    ports: PortForms,
    tls: Option<&Tls>,
    traces: Option<Arc<dyn SpanSink>>,
) -> NodeProxy {
    let chain = Chain::new(vec![
        Link::new("cache", Role::Copy, Arc::new(cache.clone())),
        Link::new("origin", Role::Origin, Arc::new(origin.clone())),
    ]);
    let metrics = ProxyMetrics::default();
    let admin = admin("proxy", Vec::new(), |registry| {
        metrics.register(registry);
        cache.register(registry);
        origin.register(registry);
        if let Some(tls) = tls {
            tls.register(registry);
        }
    });
    let options = ProxyOptions { names: ports.into(), ..ProxyOptions::default() };
    let service = ProxyService::new(Arc::new(chain), options, metrics);
    NodeProxy { frontend: frontend(admin.clone(), traces, service), admin }
}
