//! The outer layers that every stack has: health checks and metrics, then the request log.

use std::sync::Arc;

use async_trait::async_trait;
use kuik_core::{content::ContentStore, trace::SpanSink};
use prometheus_client::{metrics::info::Info, registry::Registry};
use tower::ServiceBuilder;

use crate::serve::{
    admin::{Admin, AdminLayer, AdminService, ReadinessCheck},
    request_log::{RequestLogLayer, RequestLogService},
};

/// A service behind health checks, metrics and the request log.
pub type Frontend<S> = AdminService<RequestLogService<S>>;

pub(super) fn frontend<S>(admin: Admin, traces: Option<Arc<dyn SpanSink>>, service: S) -> Frontend<S> {
    ServiceBuilder::new()
        // Outermost: probes and scrapes are answered whatever the rest does, and are not logged.
        .layer(AdminLayer::new(admin))
        // Every other request has an ID, also one that is refused further in.
        .layer(RequestLogLayer::new(traces))
        .service(service)
}

/// Returns the health and metrics endpoints of a process called `name`, which is ready while every check passes.
///
/// Metrics carry the prefix `kube_image_keeper`; `register` adds those of the components.
pub fn admin(
    name: &'static str,
    checks: Vec<Box<dyn ReadinessCheck>>,
    register: impl FnOnce(&mut Registry),
) -> Admin {
    let mut metrics = Registry::with_prefix("kube_image_keeper");
    register(&mut metrics);
    metrics.sub_registry_with_prefix(name).register(
        "build",
        "The version that is running",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    Admin::new(metrics, checks)
}

/// Readiness check: the store can be written to.
#[derive(Debug)]
pub struct Writable(pub Arc<dyn ContentStore>);

#[async_trait]
impl ReadinessCheck for Writable {
    fn name(&self) -> &str {
        "store"
    }

    async fn check(&self) -> Result<(), String> {
        self.0.check_writable().await.map_err(|error| error.chain())
    }
}
