//! An operator of your own that looks after CachedImages: your registry keeps the images, your vault opens their sources,
//! and your policy says which of them are needed. It expects the custom resources to be installed.
//!
//! `KUBECONFIG=… CACHE=registry.example:5000 cargo run --features controller --example operator`
use std::{error::Error, sync::Arc};

use futures::{StreamExt as _, stream, stream::BoxStream};
use kube_client::{Api, Client};
use kuik_core::{controller::*, copy::*, credentials::*, reference::RepositoryName as Name, registry::*};

#[derive(Debug)]
struct Vault;

#[async_trait::async_trait]
impl CredentialProvider for Vault {
    async fn candidates(&self, _: &Name) -> Result<Vec<Credential>, CredentialError> {
        let password = std::env::var("VAULT_PASSWORD").ok();
        Ok(password.map(|password| Credential::basic("operator", password)).into_iter().collect())
    }
}

#[derive(Debug)]
struct Releases;

impl Usage for Releases {
    fn of(&self, image: &str) -> Option<ImageUsage> {
        Some(ImageUsage { count: usize::from(!image.ends_with("-dev")), pods: Vec::new() })
    }

    fn changes(&self) -> BoxStream<'static, Option<String>> {
        stream::pending().boxed()
    }
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn registry(at: impl UpstreamResolver, who: impl CredentialProvider) -> Outcome<RegistryClient> {
    let mut config = TransportConfig::default();
    config.guard = at.guard();
    Ok(RegistryClient::new(HttpTransport::new(config)?, at, who, Default::default()))
}

pub(crate) async fn run(kube: Client, cache: &str, sources: Upstreams) -> Outcome<()> {
    let (images, watching_images) = Informer::new(Api::all(kube.clone()), Default::default());
    let (repositories, watching_repositories) = Informer::new(Api::all(kube.clone()), Default::default());
    let cache = Upstream::new(&format!("http://{cache}"), Name::new(cache, "cache")?)?;
    let (source, cache) = (registry(sources, Vault)?, registry(cache, Anonymous)?);
    let copier = PushCopier::new(Arc::new(source), cache, Arc::new(Platforms::parse(["amd64", "arm64"])?));
    let (usage, copier) = (Arc::new(Releases), Arc::new(copier));
    let reconciler =
        cached_image::Reconciler::new(kube, images, repositories, usage, copier, Default::default());
    tokio::join!(reconciler.run(std::future::pending()), watching_images, watching_repositories);
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    run(Client::try_default().await?, &std::env::var("CACHE")?, Upstreams::default()).await
}
