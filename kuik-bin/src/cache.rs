//! Assembles a pull-through cache on one machine: a directory, a registry client, and the proxy over both.

use std::sync::Arc;

use async_trait::async_trait;
use kuik_core::{
    content::ContentStore,
    credentials::CredentialProvider,
    reference::PortForms,
    registry::{
        CertificateAuthorities, HttpTransport, InvalidTransport, ProxyConfig, RegistryClient, Timeouts,
        TransportConfig, UpstreamResolver as _, Upstreams,
    },
};
use kuik_proxy::{
    admin::{Admin, ReadinessCheck},
    pull_through::{PullThrough, PullThroughOptions},
    server::Tls,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
};
use prometheus_client::{metrics::info::Info, registry::Registry};

use crate::{frontend::Frontend, upstream_metrics};

/// What a cache needs to know of the world outside.
#[derive(Debug)]
pub struct Outside<C> {
    /// Where registries are.
    pub upstreams: Upstreams,
    /// Credentials for them.
    pub credentials: C,
    /// Certificate authorities beside the system's.
    pub roots: Vec<CertificateAuthorities>,
    /// Proxies between here and there.
    pub proxy: ProxyConfig,
}

/// A pull-through cache, ready to be served.
#[derive(Debug)]
pub struct Cache {
    /// Serves it.
    pub frontend: Frontend<ProxyService>,
    /// To be drained when serving has ended.
    pub pull_through: PullThrough,
}

/// A client of the registries outside, and the transport that it uses, which can be told to trust others.
///
/// # Errors
/// Where a certificate or a proxy is unusable.
pub fn registry_client<C: CredentialProvider>(
    outside: Outside<C>,
) -> Result<(RegistryClient, HttpTransport), InvalidTransport> {
    let mut config = TransportConfig::default();
    config.guard = outside.upstreams.guard();
    config.extra_roots = outside.roots;
    config.proxy = outside.proxy;
    let timeouts = Timeouts::default();
    let transport = HttpTransport::new(config)?;
    let client = RegistryClient::new(transport.clone(), outside.upstreams, outside.credentials, timeouts);
    Ok((client, transport))
}

/// A cache in `store` of what `upstream` has; `tls` is what it is served over, for its counters.
#[must_use]
pub fn cache(
    store: Arc<dyn ContentStore>,
    upstream: &RegistryClient,
    options: PullThroughOptions,
    ports: PortForms,
    tls: Option<&Tls>,
) -> Cache {
    let pull_through = PullThrough::new(store.clone(), Arc::new(upstream.clone()), options);
    let proxy_metrics = ProxyMetrics::default();
    let admin = admin("proxy", vec![Box::new(Writable(store))], |metrics| {
        proxy_metrics.register(metrics);
        upstream_metrics::register(upstream, metrics);
        if let Some(tls) = tls {
            tls.register(metrics);
        }
    });
    let mut proxy_options = ProxyOptions::default();
    proxy_options.names = ports.into();
    let proxy = ProxyService::new(Arc::new(pull_through.clone()), proxy_options, proxy_metrics);
    Cache { frontend: Frontend::new(admin, proxy), pull_through }
}

/// The operators' questions about a process called `name` in its metrics, which is ready while `checks` pass.
pub(crate) fn admin(
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

/// Ready while the store can be written to.
#[derive(Debug)]
pub(crate) struct Writable(pub(crate) Arc<dyn ContentStore>);

#[async_trait]
impl ReadinessCheck for Writable {
    fn name(&self) -> &str {
        "store"
    }

    async fn check(&self) -> Result<(), String> {
        self.0.check_writable().await.map_err(|error| error.chain())
    }
}
