//! The way to the cluster's API server.

use std::time::Duration;

use kube_client::{Client, Config};

/// How long the API server may be silent on a connection. Watches hear from it every minute or so.
const SILENCE: Duration = Duration::from_secs(300);

/// There is no way to the cluster.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the Kubernetes cluster: run in a pod of it, or set KUBECONFIG")]
pub struct NoCluster(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A client of the cluster that this process runs in, or that `KUBECONFIG` names. Nothing is asked of it yet.
///
/// It waits with what the API server has too much to do for, as long as that asks for, and no request waits for ever.
///
/// # Errors
/// Where there is no such cluster, or its certificates are unusable.
pub async fn connect() -> Result<Client, NoCluster> {
    let mut config = Config::infer().await.map_err(|error| NoCluster(error.into()))?;
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|error| NoCluster(error.into()))
}
