//! Connection to the Kubernetes API server.

use std::time::Duration;

use kube_client::{Client, Config};

/// Read timeout of a connection. Watches receive data about every minute.
const SILENCE: Duration = Duration::from_secs(300);

/// No cluster configuration was found.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the Kubernetes cluster: run in a pod of it, or set KUBECONFIG")]
pub struct NoCluster(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Returns a client of the cluster that this process runs in, or that `KUBECONFIG` names. Sends no request yet.
///
/// If the API server throttles, requests wait as long as its `Retry-After` says. All requests have a timeout.
///
/// # Errors
/// Returns an error if there is no such cluster or its certificates are unusable.
pub async fn connect() -> Result<Client, NoCluster> {
    let mut config = Config::infer().await.map_err(|error| NoCluster(error.into()))?;
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|error| NoCluster(error.into()))
}
