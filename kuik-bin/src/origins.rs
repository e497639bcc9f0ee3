//! The client of the registries outside, as it is configured: with what a cluster's pull secrets open, where it may.

use std::sync::Arc;

use kube_client::{Api, Client};
use kube_runtime::watcher;
use kuik_core::{
    controller::{self, Informer, PullSecrets},
    crd::Repository,
    credentials::Providers,
    registry::RegistryClient,
};

use crate::{
    authorities,
    cache::{self, Outside},
    command::Failure,
    config::origins::OriginsConfig,
};

/// A client of the registries that `config` speaks of.
///
/// # Errors
/// Where a certificate or a proxy is unusable, or no cluster is known whose pull secrets are to be used. The cluster is
/// not asked yet: who starts while its API server is away has its secrets once it is back.
pub async fn origins_client(config: OriginsConfig) -> Result<RegistryClient, Failure> {
    let mut credentials = Providers::default();
    if config.kubernetes {
        let client = controller::connect().await.map_err(Failure::new)?;
        credentials = credentials.and(Arc::new(pull_secrets(&client)));
    }
    let outside = Outside {
        upstreams: config.upstreams,
        credentials: credentials.and(Arc::new(config.credentials)),
        roots: config.roots,
        proxy: config.proxy,
    };
    let (client, transport) = cache::registry_client(outside).map_err(Failure::usage)?;
    // It ends with the process.
    tokio::spawn(authorities::keep(config.root_files, transport));
    Ok(client)
}

/// The pull secrets that Repositories name, kept in memory: a pull asks nothing of the API server.
fn pull_secrets(client: &Client) -> PullSecrets {
    let everywhere = Api::<Repository>::all(client.clone());
    let (repositories, watching) = Informer::new(everywhere, watcher::Config::default());
    let (secrets, reading) = PullSecrets::new(client.clone(), repositories);
    // It ends with the process.
    tokio::spawn(async move { tokio::join!(watching, reading) });
    secrets
}
