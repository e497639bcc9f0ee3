//! `kuik-proxy`: what every node pulls through.

use std::process::ExitCode;

use kuik_proxy::chain::{ReplicaSet, ReplicaSetOptions};

use super::{Failure, configure_containerd};
use crate::{
    config::proxy::{ProxyConfig, RawProxy},
    origins::origins_client,
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
#[command(name = "kuik-proxy", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    raw: RawProxy,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    ConfigureContainerd(configure_containerd::Arguments),
}

impl Cli {
    /// Serves until it is asked to stop, or does what the subcommand says. What goes wrong is said on standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Some(Command::ConfigureContainerd(arguments)) => arguments.run(),
            None => {
                let config = self.raw.validate().map_err(Failure::usage);
                config.and_then(|config| process::run(serve(config)))
            }
        };
        Failure::exit_code("kuik-proxy", result)
    }
}

async fn serve(config: ProxyConfig) -> Result<(), Failure> {
    let ProxyConfig { process, metrics, replicas, origins } = config;
    let process = Process::start(process)?;
    let ports = origins.ports;
    let origin = origins_client(origins).await?;
    let cache = ReplicaSet::new(replicas, HttpReplicas, ReplicaSetOptions::default());
    let proxy = proxy(&cache, &origin, ports, process.tls().as_ref());
    answer_operators(metrics, &proxy.admin)?;
    // Both end with the process.
    tokio::spawn(async move { cache.maintain().await });
    let frontend = proxy.frontend.recorded_by(process.sink());
    process.serve(frontend, None).await
}
