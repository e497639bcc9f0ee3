//! `kuik-proxy`: what every node pulls through.

use std::{process::ExitCode, sync::Arc};

use kuik_proxy::chain::{ReplicaSet, ReplicaSetOptions};

use super::Failure;
use crate::{
    cache::{self, Outside},
    config::proxy::{ProxyConfig, RawProxy},
    process::{self, Process, answer_operators},
    proxy::proxy,
    replica::HttpReplicas,
};

/// Pull container images from the cache, and from their own registries where the cache cannot help.
///
/// Clients pull localhost:8082/docker.io/library/nginx. Of several replicas of the cache, each part of an image is
/// asked of the one that owns it. A replica that is away is left alone until it is back.
///
/// /healthz, /readyz and /metrics are answered on the same addresses. SIGTERM lets running pulls finish. Proxies on
/// the way to registries are taken from HTTP_PROXY, HTTPS_PROXY and NO_PROXY. The exit code is 2 where the
/// configuration is wrong, and 1 where something else is.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik-proxy", version)]
pub struct Cli {
    #[command(flatten)]
    raw: RawProxy,
}

impl Cli {
    /// Serves until it is asked to stop. What goes wrong is said on standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let config = self.raw.validate().map_err(Failure::usage);
        let result = config.and_then(|config| process::run(serve(config)));
        Failure::exit_code("kuik-proxy", result)
    }
}

async fn serve(config: ProxyConfig) -> Result<(), Failure> {
    let ProxyConfig { process, metrics, replicas, origins } = config;
    let process = Process::start(process)?;
    for warning in origins.credentials.warnings() {
        tracing::warn!("{warning}");
    }
    let origin = cache::registry_client(Outside {
        upstreams: origins.upstreams,
        credentials: origins.credentials,
        roots: origins.roots,
        proxy: origins.proxy,
    })
    .map_err(Failure::usage)?;
    let cache = ReplicaSet::new(replicas, HttpReplicas, ReplicaSetOptions::default());
    let proxy = proxy(&cache, Arc::new(origin), origins.ports, process.tls().as_ref());
    if let Some(address) = metrics {
        answer_operators(&address, proxy.admin)?;
    }
    // Both end with the process.
    tokio::spawn(async move { cache.maintain().await });
    process.serve(proxy.frontend, None).await
}
