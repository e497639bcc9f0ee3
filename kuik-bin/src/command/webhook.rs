//! `kuik-webhook`: the standalone admission webhook.

use std::process::ExitCode;

use crate::cli_error::CliError;
use kuik_proxy::stack::admin;

use crate::{
    config::process::bind_address_help,
    config::webhook::{RawWebhook, WebhookConfig},
    process::{self, Process, serve_admin},
    webhook::Webhook,
};

/// Serve the mutating admission webhook, which rewrites pod images to the proxy.
///
/// Reviews are served over TLS. The certificate comes from files, or is self-managed: created, renewed and published to the
/// API servers by this program, and shared by all replicas. This requires access to a cluster: that of this pod, or of
/// KUBECONFIG.
///
/// SIGTERM lets running requests finish. The exit code is 2 if the configuration is invalid, and 1 after any other failure.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik-webhook", version)]
#[command(mut_arg("bind_address", |arg| arg.help(bind_address_help!(":9443"))))]
pub struct Cli {
    #[command(flatten)]
    raw: RawWebhook,
}

impl Cli {
    /// Serves until a signal stops it. Errors are printed to standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let config = self.raw.validate().map_err(CliError::usage);
        let result = config.and_then(|config| process::run(serve(config)));
        CliError::exit_code("kuik-webhook", result)
    }
}

async fn serve(config: WebhookConfig) -> Result<(), CliError> {
    let WebhookConfig { process, metrics, health, rewriting, certificates } = config;
    let process = Process::start(process)?;
    let webhook = Webhook::new(&rewriting, process.tls(), certificates);
    let admin = admin("webhook", vec![webhook.readiness()], |registry| webhook.register(registry));
    serve_admin(health.into_iter().chain(metrics), &admin)?;
    match webhook.certificate(None, process.stop()).await? {
        Some(tls) => process.with_tls(tls).serve(webhook.service(), None).await,
        None => Ok(()),
    }
}
