//! `kuik serve`: cache and proxy in one process, on one machine, without Kubernetes.

use std::sync::Arc;

use kuik_proxy::{pull_through::PullThroughOptions, store::FilesystemStore};

use super::Failure;
use crate::{
    cache,
    config::serve::{RawServe, ServeConfig},
    origins::origins_client,
    process::{self, Process},
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
        process::run(serve(config))
    }
}

async fn serve(config: ServeConfig) -> Result<(), Failure> {
    let ServeConfig { process, data_dir, origins } = config;
    let process = Process::start(process)?;
    let (revalidate, ports) = (origins.revalidate, origins.ports);
    let upstream = origins_client(origins).await?;
    let store = Arc::new(FilesystemStore::open(&data_dir).map_err(Failure::new)?.as_cache());
    let mut options = PullThroughOptions::default();
    options.revalidate = revalidate;
    let cache = cache::cache(store, &upstream, options, ports, process.tls().as_ref());
    tracing::info!(data_dir = %data_dir.display(), "images are cached");
    let frontend = cache.frontend.recorded_by(process.sink());
    process.serve(frontend, Some(cache.pull_through)).await
}
