//! The client of upstream registries, as configured: with the pull secrets of the cluster, if the process may read them.

use std::sync::Arc;

#[cfg(feature = "kubernetes")]
use kube_client::{Api, Client};
#[cfg(feature = "kubernetes")]
use kube_runtime::watcher;
use kuik_core::{client::RegistryClient, credentials::Providers};
#[cfg(feature = "kubernetes")]
use kuik_core::{
    controller::{self, Informer, PullSecrets},
    crd::Repository,
};

use kuik_proxy::stack::{OriginOptions, origin_client};

use crate::{ca_reload, cli_error::CliError, config::origins::OriginsConfig};

/// Returns the client of the registries that `config` names.
///
/// # Errors
/// If a certificate or a proxy is unusable, or if pull secrets are configured without a cluster. No request is sent yet: a
/// process that starts while its API server is down reads the secrets when it is up again.
pub async fn origins_client(config: OriginsConfig) -> Result<RegistryClient, CliError> {
    let mut credentials = Providers::default();
    if config.kubernetes {
        credentials = credentials.and(cluster_credentials().await?);
    }
    let outside = OriginOptions {
        upstreams: config.upstreams,
        credentials: credentials.and(Arc::new(config.credentials)),
        roots: config.roots,
        proxy: config.proxy,
    };
    let (client, transport) = origin_client(outside).map_err(CliError::usage)?;
    // It ends with the process.
    tokio::spawn(ca_reload::keep(config.root_files, move |roots| transport.trust(roots)));
    Ok(client)
}

/// The pull secrets of a cluster.
#[cfg(feature = "kubernetes")]
async fn cluster_credentials() -> Result<Arc<PullSecrets>, CliError> {
    let client = controller::connect().await.map_err(CliError::new)?;
    Ok(Arc::new(pull_secrets(&client)))
}

/// This build has no Kubernetes client.
#[cfg(not(feature = "kubernetes"))]
async fn cluster_credentials() -> Result<Arc<Providers>, CliError> {
    Err(CliError::usage("kubernetes: this program was built without the feature `kubernetes`"))
}

/// The pull secrets that Repositories name, kept in memory: a pull asks nothing of the API server.
#[cfg(feature = "kubernetes")]
fn pull_secrets(client: &Client) -> PullSecrets {
    let everywhere = Api::<Repository>::all(client.clone());
    let (repositories, watching) = Informer::new(everywhere, watcher::Config::default());
    let (secrets, reading) = PullSecrets::new(client.clone(), repositories);
    // It ends with the process.
    tokio::spawn(async move { tokio::join!(watching, reading) });
    secrets
}
