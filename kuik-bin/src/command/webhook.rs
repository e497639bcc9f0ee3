//! `kuik-webhook`: the admission webhook alone.

use std::process::ExitCode;

use super::Failure;
use crate::{
    cache::admin,
    config::webhook::{RawWebhook, WebhookConfig},
    process::{self, Process, answer_operators},
    webhook::Webhook,
};

/// Rewrite the images of pods to the proxy, as an admission webhook of Kubernetes.
///
/// Reviews are answered over TLS. Its certificate is given in files, or made, renewed and announced to API servers by this
/// program itself, which then needs a cluster: the one that it runs in, or that of the kubeconfig. Replicas share it.
///
/// SIGTERM lets running requests finish. The exit code is 2 where the configuration is wrong, and 1 where something else is.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik-webhook", version)]
pub struct Cli {
    #[command(flatten)]
    raw: RawWebhook,
}

impl Cli {
    /// Serves until it is asked to stop. What goes wrong is said on standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let config = self.raw.validate().map_err(Failure::usage);
        let result = config.and_then(|config| process::run(serve(config)));
        Failure::exit_code("kuik-webhook", result)
    }
}

async fn serve(config: WebhookConfig) -> Result<(), Failure> {
    let WebhookConfig { process, metrics, health, rewriting, certificates } = config;
    let process = Process::start(process)?;
    let webhook = Webhook::new(&rewriting, process.tls(), certificates);
    let admin = admin("webhook", vec![webhook.readiness()], |registry| webhook.register(registry));
    answer_operators(health.into_iter().chain(metrics), &admin)?;
    match webhook.certificate(None, process.stop()).await? {
        Some(tls) => process.with_tls(tls).serve(webhook.service(), None).await,
        None => Ok(()),
    }
}
