//! `kuik serve`: cache and proxy in one process, for a single machine without Kubernetes.

use kuik_proxy::{
    pull_through::PullThroughOptions,
    stack::{StoreMaintenance, maintained_cache},
};

use crate::cli_error::CliError;
use crate::{
    config::process::bind_address_help,
    config::serve::{RawServe, ServeConfig},
    maintenance::{MaintenanceTasks, open_directory},
    origins::origins_client,
    process::{self, Process},
};

/// Serve a pull-through cache of container images.
///
/// Clients pull localhost:7439/docker.io/library/nginx (or localhost:7439/nginx). Missing content is fetched from its
/// registry once, also for concurrent clients, and cached. If the registry is unavailable, cached content is still served.
/// With --max-size, the least recently pulled images are evicted before the limit is reached.
///
/// /healthz, /readyz and /metrics are served on the same addresses. SIGTERM lets running pulls finish. HTTP_PROXY,
/// HTTPS_PROXY and NO_PROXY apply to upstream requests. The exit code is 2 if the configuration is invalid, and 1 after any
/// other failure.
#[derive(Debug, clap::Args)]
#[command(mut_arg("bind_address", |arg| arg.help(bind_address_help!("localhost:7439"))))]
pub struct Arguments {
    #[command(flatten)]
    raw: RawServe,
}

impl Arguments {
    /// Serves until a signal stops it.
    ///
    /// # Errors
    /// Fails if the configuration is invalid, the directory is in use, or an address is taken.
    pub fn run(self) -> Result<(), CliError> {
        let config = self.raw.validate().map_err(CliError::usage)?;
        process::run(serve(config))
    }
}

async fn serve(config: ServeConfig) -> Result<(), CliError> {
    let ServeConfig { process, data_dir, maintenance, origins } = config;
    let process = Process::start(process)?;
    let (revalidate, ports) = (origins.revalidate, origins.ports);
    let upstream = origins_client(origins).await?;
    let maintenance = StoreMaintenance::new(open_directory(&data_dir)?, maintenance);
    let mut options = PullThroughOptions::default();
    options.revalidate = revalidate;
    let tls = process.tls();
    let cache = maintained_cache(&maintenance, &upstream, options, ports, tls.as_ref(), process.sink());
    tracing::info!(data_dir = %data_dir.display(), "caching images");
    let tasks = MaintenanceTasks::spawn(&maintenance, Some(&cache.pull_through));
    let served = process.serve(cache.frontend, Some(cache.pull_through)).await;
    drop(tasks);
    maintenance.end().await;
    served
}
