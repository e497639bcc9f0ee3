//! `kuik serve`: cache and proxy in one process, on one machine, without Kubernetes.

use std::{
    io::{self, IsTerminal as _},
    sync::Arc,
};

use kuik_proxy::{
    pull_through::PullThroughOptions,
    server::{self, BindAddress},
    store::FilesystemStore,
};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::Failure;
use crate::{
    cache::{self, Outside},
    config::serve::{LogConfig, RawServe, ServeConfig},
    shutdown::Signals,
};

/// Serve a pull-through cache of container images.
///
/// Clients pull localhost:7439/docker.io/library/nginx (or just localhost:7439/nginx) and get the image from the
/// cache; what the cache does not have is fetched from its registry once, however many ask, and kept. When the
/// registry is away, what is cached is served all the same.
///
/// /healthz, /readyz and /metrics are answered on the same addresses. SIGTERM lets running pulls finish. Proxies on
/// the way out are taken from HTTP_PROXY, HTTPS_PROXY and NO_PROXY. The exit code is 2 where the configuration is
/// wrong, and 1 where something else is.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    raw: RawServe,
}

impl Arguments {
    /// Serves until it is asked to stop.
    ///
    /// # Errors
    /// Where the configuration is wrong, the directory is in use, or an address is taken.
    pub fn run(self) -> Result<(), Failure> {
        let config = self.raw.validate().map_err(Failure::usage)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::new)?;
        runtime.block_on(serve(config))
    }
}

async fn serve(config: ServeConfig) -> Result<(), Failure> {
    install_log(config.log);
    for warning in config.credentials.warnings() {
        tracing::warn!("{warning}");
    }
    let signals = Signals::catch().map_err(Failure::new)?;
    let store = Arc::new(FilesystemStore::open(&config.data_dir).map_err(Failure::new)?.as_cache());
    let upstream = cache::registry_client(Outside {
        upstreams: config.upstreams,
        credentials: config.credentials,
        roots: config.roots,
        proxy: config.proxy,
    })
    .map_err(Failure::usage)?;
    let mut options = PullThroughOptions::default();
    options.revalidate = config.revalidate;
    let cache = cache::cache(store, Arc::new(upstream), options, config.ports);

    let bound = config.bind.iter().map(BindAddress::listen).collect::<Result<Vec<_>, _>>();
    let listeners: Vec<_> = bound.map_err(Failure::new)?.into_iter().flatten().collect();
    for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
        tracing::info!(%address, data_dir = %config.data_dir.display(), "serving");
    }
    let stop = signals.asked_to_stop();
    let cut = server::serve(listeners, cache.frontend, stop, config.shutdown_timeout).await;
    if cut > 0 {
        tracing::warn!(connections = cut, "connections that did not end in time were cut");
    }
    if tokio::time::timeout(config.shutdown_timeout, cache.pull_through.drain()).await.is_err() {
        tracing::warn!("fetches that did not end in time were abandoned");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Logs go to standard error. A process has one log, and this is the one place that installs it.
fn install_log(log: LogConfig) {
    let registry = tracing_subscriber::registry().with(log.filter);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    if log.json {
        registry.with(lines.json()).init();
    } else {
        registry.with(lines).init();
    }
}
