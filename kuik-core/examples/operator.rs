//! The CachedImage controller in an operator of one's own, with its own cache registry, vault and usage policy.
//! The custom resources must be installed: `kuik crds | kubectl apply -f -`.
//!
//! `CACHE=http://registry.example:5000 cargo run -p kuik-core --features controller --example operator`

use std::{error::Error, future::pending, sync::Arc};

use futures::stream::{BoxStream, StreamExt as _, pending as no_changes};
use kube_client::{Api, Client};
use kuik_core::client::{RegistryClient, TransportConfig, Upstreams};
use kuik_core::controller::{ImageUsage, Informer, Usage, cached_image::CachedImageController};
use kuik_core::copy::{Platforms, PushCopier};
use kuik_core::credentials::{Anonymous, Credential, CredentialError, CredentialProvider};
use kuik_core::reference::RepositoryName;

/// Credentials for source registries. It is asked only after a registry has refused an anonymous request.
#[derive(Debug)]
struct Vault;

#[kuik_core::async_trait]
impl CredentialProvider for Vault {
    async fn candidates(&self, _: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        let password = std::env::var("VAULT_PASSWORD").ok();
        Ok(password.map(|password| Credential::basic("operator", password)).into_iter().collect())
    }
}

/// Which images are in use, instead of those of pods: an unused image expires after the delay in the options.
#[derive(Debug)]
struct Releases;

impl Usage for Releases {
    fn of(&self, image: &str) -> Option<ImageUsage> {
        Some(ImageUsage { count: usize::from(!image.ends_with("-dev")), pods: Vec::new() })
    }

    fn changes(&self) -> BoxStream<'static, Option<String>> {
        no_changes().boxed()
    }
}

pub(crate) async fn run(kube: Client, cache: &str, sources: Upstreams) -> Result<(), Box<dyn Error>> {
    // One watch per kind of object. The second value is the future that runs it: nothing is spawned.
    let (images, watch_images) = Informer::new(Api::all(kube.clone()), Default::default());
    let (repositories, watch_repositories) = Informer::new(Api::all(kube.clone()), Default::default());
    let source = RegistryClient::of_upstreams(sources, Vault, TransportConfig::default())?;
    let cache = RegistryClient::of_cache(cache, Anonymous, TransportConfig::default())?;
    let platforms = Arc::new(Platforms::parse(["amd64", "arm64"])?);
    let (usage, copier) = (Arc::new(Releases), Arc::new(PushCopier::new(Arc::new(source), cache, platforms)));
    let controller =
        CachedImageController::new(kube, images, repositories, usage, copier, Default::default());
    tokio::join!(controller.run(pending()), watch_images, watch_repositories);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(Client::try_default().await?, &std::env::var("CACHE")?, Upstreams::default()).await
}
