//! `kuik demo`: the whole promise on one machine, without a network: an image is pulled through the cache, its
//! registry goes away, and it is pulled again.
//!
//! Everything in it is real: the upstream is a registry on a loopback port, the cache is what `kuik serve` runs, and
//! the nodes are registry clients that verify every digest.

mod client;
mod image;
mod report;
mod upstream;

use std::{io, path::Path, sync::Arc, time::Duration};

use kuik_core::{
    credentials::Anonymous,
    reference::PortForms,
    registry::{ProxyConfig, RegistryClient, Upstreams},
};
use kuik_proxy::{
    pull_through::{PullThrough, PullThroughOptions},
    server::{self, BindAddress},
    store::FilesystemStore,
};
use tokio::{sync::oneshot, task::JoinHandle};

use self::{client::Pulled, image::DemoImage, report::Report, upstream::Upstream};
use super::Failure;
use crate::cache::{self, Outside};

/// The registry that the demonstration's image is named after. It exists only here.
const REGISTRY: &str = "registry.demo";
const REPOSITORY: &str = "kuik/hello";
const TAG: &str = "1.0";

/// How many nodes pull at the same moment.
const NODES: usize = 8;

/// The whole demonstration takes a second or two; whatever takes so long is broken.
const LIMIT: Duration = Duration::from_secs(60);

/// Show what kuik does, on this machine, without a network.
///
/// Starts a registry with a multi-platform image that it builds, and a cache in front of it, both on free loopback
/// ports and in a temporary directory. Eight nodes pull the image through the cache at the same moment; the registry
/// is stopped; a node pulls it again. Prints what was fetched from where, and ends with exit code 1 where anything
/// differs.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

impl Arguments {
    /// Runs the demonstration.
    ///
    /// # Errors
    /// Where anything is not as promised.
    pub fn run(&self) -> Result<(), Failure> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::new)?;
        runtime.block_on(async {
            tokio::time::timeout(LIMIT, demonstrate()).await.unwrap_or_else(|_| {
                Err(Failure::new(format!("the demonstration took longer than {LIMIT:?}")))
            })
        })
    }
}

async fn demonstrate() -> Result<(), Failure> {
    let dir = tempfile::tempdir().map_err(Failure::new)?;
    let image = DemoImage::build().map_err(Failure::new)?;
    let mut report = Report::new(io::stdout().lock());

    let mut upstream = Upstream::start(&dir.path().join("upstream"), &image).await?;
    let cache = LocalCache::start(&dir.path().join("cache"), upstream.port()).await?;
    report.scene(&image, upstream.port(), cache.port)?;

    report.step(&format!("{NODES} nodes pull it at the same moment, through localhost:{}", cache.port))?;
    let pulls = futures::future::try_join_all((0..NODES).map(|_| client::pull(cache.port))).await?;
    let cold = pulls.first().cloned().unwrap_or_default();
    let asked = upstream.take_log();
    report.pull(&cold, &asked)?;
    report.totals(&pulls, &asked)?;
    let once =
        asked.iter().all(|request| asked.iter().filter(|other| other.path == request.path).count() == 1);
    check(once, "the upstream was asked for something more than once")?;
    check(pulls.iter().all(|pulled| same(pulled, &cold)), "two nodes got different content")?;
    check(image.is_what(&cold), "what was pulled is not the image that was built")?;

    report.step("the upstream is stopped")?;
    upstream.stop().await;
    report.step("a node without the image pulls it again")?;
    let warm = client::pull(cache.port).await?;
    report.pull(&warm, &upstream.take_log())?;
    check(same(&warm, &cold), "the cache served other content than the upstream did")?;

    cache.stop().await;
    report.done(&cold)?;
    Ok(())
}

fn same(one: &[Pulled], other: &[Pulled]) -> bool {
    one.iter().map(Pulled::identity).eq(other.iter().map(Pulled::identity))
}

fn check(holds: bool, otherwise: &'static str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(otherwise)) }
}

/// A client that finds registries as `upstreams` says: the one of the cache, and the one of each node.
fn client_of(upstreams: Upstreams) -> Result<RegistryClient, Failure> {
    let (credentials, roots, proxy) = (Anonymous, Vec::new(), ProxyConfig::default());
    let outside = Outside { upstreams, credentials, roots, proxy };
    cache::registry_client(outside).map(|(client, _)| client).map_err(Failure::new)
}

/// The cache, as `kuik serve` runs it, on a free port.
struct LocalCache {
    port: u16,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<usize>,
    pull_through: PullThrough,
}

impl LocalCache {
    async fn start(dir: &Path, upstream_port: u16) -> Result<Self, Failure> {
        let store = Arc::new(FilesystemStore::open(dir).map_err(Failure::new)?.as_cache());
        let upstreams = Upstreams::default()
            .overriding(&format!("{REGISTRY}=http://127.0.0.1:{upstream_port}"))
            .map_err(Failure::new)?;
        let client = client_of(upstreams)?;
        let cache = cache::cache(store, &client, PullThroughOptions::default(), PortForms::default(), None);
        let listeners = BindAddress::localhost(0).listen().map_err(Failure::new)?;
        let port = upstream::port_of(&listeners)?;
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let serving = tokio::spawn(server::serve(listeners, cache.frontend, stopped, LIMIT));
        Ok(Self { port, stop, serving, pull_through: cache.pull_through })
    }

    async fn stop(self) {
        drop(self.stop);
        let _ = self.serving.await;
        self.pull_through.drain().await;
    }
}
