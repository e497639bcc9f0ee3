//! `kuik-proxy`: the pull proxy on every node.

use std::process::ExitCode;

use kuik_proxy::{
    chain::{CacheReplicas, CacheReplicasOptions},
    stack::{HttpReplicas, node_proxy},
};

use crate::cli_error::CliError;

use super::configure_containerd;
use crate::{
    ca_reload,
    config::process::bind_address_help,
    config::proxy::{ProxyConfig, RawProxy},
    origins::origins_client,
    process::{self, Process, serve_admin},
};

/// Serve image pulls from the cache, or from the upstream registry if the cache is unavailable.
///
/// Clients pull localhost:8082/docker.io/library/nginx. Several replicas of the cache are ranked by rendezvous hashing; an
/// unresponsive replica is skipped until a health check succeeds.
///
/// /healthz, /readyz and /metrics are served on the same addresses. SIGTERM lets running pulls finish. HTTP_PROXY,
/// HTTPS_PROXY and NO_PROXY apply to upstream requests. The exit code is 2 if the configuration is invalid, and 1 after any
/// other failure.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik-proxy", version, args_conflicts_with_subcommands = true)]
#[command(mut_arg("bind_address", |arg| arg.help(bind_address_help!(":8082"))))]
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
    /// Serves until a signal stops it, or runs the subcommand. Errors are printed to standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Some(Command::ConfigureContainerd(arguments)) => arguments.run(),
            None => {
                let config = self.raw.validate().map_err(CliError::usage);
                config.and_then(|config| process::run(serve(config)))
            }
        };
        CliError::exit_code("kuik-proxy", result)
    }
}

async fn serve(config: ProxyConfig) -> Result<(), CliError> {
    let ProxyConfig { process, metrics, replicas, access, origins } = config;
    let process = Process::start(process)?;
    let ports = origins.ports;
    let origin = origins_client(origins).await?;
    let mut connect = HttpReplicas::default();
    if let Some(credentials) = access.credentials {
        connect = connect.with_credentials(credentials);
    }
    connect.trust(&access.roots).map_err(CliError::usage)?;
    // It ends with the process.
    let trusting = connect.clone();
    tokio::spawn(ca_reload::keep(access.root_files, move |roots| trusting.trust(roots)));
    let cache = CacheReplicas::new(replicas, connect, CacheReplicasOptions::default());
    let proxy = node_proxy(&cache, &origin, ports, process.tls().as_ref(), process.sink());
    serve_admin(metrics, &proxy.admin)?;
    // The task ends with the process.
    tokio::spawn(async move { cache.maintain().await });
    process.serve(proxy.frontend, None).await
}
