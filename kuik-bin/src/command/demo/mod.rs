//! `kuik demo`: an end-to-end demonstration on one machine without a network: it pulls an image through the cache, stops
//! its registry, and pulls it again.
//!
//! Everything in it is real: the upstream is a registry on a loopback port, the cache is what `kuik serve` runs, and
//! the nodes are registry clients that verify every digest.

mod client;
mod image;
mod report;
mod upstream;

use std::{io, path::Path, sync::Arc, time::Duration};

use kuik_core::{
    client::{RegistryClient, Upstreams},
    credentials::Anonymous,
    reference::PortForms,
};
use kuik_proxy::{
    pull_through::{PullThrough, PullThroughOptions},
    serve::{self, BindAddress},
    store::FilesystemStore,
};
use tokio::{sync::oneshot, task::JoinHandle};

use self::{client::Pulled, image::DemoImage, report::Report, upstream::Upstream};
use crate::cli_error::CliError;
use kuik_proxy::stack::{OriginOptions, origin_client, pull_through_cache};

/// Registry in the image's name. It exists only in the demonstration.
const REGISTRY: &str = "registry.demo";
const REPOSITORY: &str = "kuik/hello";
const TAG: &str = "1.0";

/// Number of nodes that pull concurrently.
const NODES: usize = 8;

/// Time limit; the demonstration normally takes one or two seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Demonstrate the cache on this machine, without a network.
///
/// Builds a multi-platform image, and starts a registry with it and a cache in front, on free loopback ports and in a
/// temporary directory. Eight nodes pull the image through the cache concurrently; the registry is stopped; a node pulls
/// the image again. Prints the source of each download. The exit code is 1 if any content differs.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

impl Arguments {
    /// Runs the demonstration.
    ///
    /// # Errors
    /// Fails if content differs, or was fetched from upstream more than once.
    pub fn run(&self) -> Result<(), CliError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::new)?;
        runtime.block_on(async {
            tokio::time::timeout(LIMIT, demonstrate()).await.unwrap_or_else(|_| {
                Err(CliError::new(format!("the demonstration took longer than {LIMIT:?}")))
            })
        })
    }
}

async fn demonstrate() -> Result<(), CliError> {
    let dir = tempfile::tempdir().map_err(CliError::new)?;
    let image = DemoImage::build().map_err(CliError::new)?;
    let mut report = Report::new(io::stdout().lock());

    let mut upstream = Upstream::start(&dir.path().join("upstream"), &image).await?;
    let cache = LocalCache::start(&dir.path().join("cache"), upstream.port()).await?;
    report.scene(&image, upstream.port(), cache.port)?;

    report.step(&format!("{NODES} nodes pull it concurrently, through localhost:{}", cache.port))?;
    let pulls = futures::future::try_join_all((0..NODES).map(|_| client::pull(cache.port))).await?;
    let cold = pulls.first().cloned().unwrap_or_default();
    let downloads = upstream.take_log();
    report.pull(&cold, &downloads)?;
    report.totals(&pulls, &downloads)?;
    let mut paths: Vec<_> = downloads.iter().map(|download| &download.path).collect();
    paths.sort_unstable();
    check(
        paths.is_sorted_by(|one, next| one < next),
        "the same content was fetched from upstream more than once",
    )?;
    check(pulls.iter().all(|pulled| same(pulled, &cold)), "two nodes got different content")?;
    check(image.is_what(&cold), "the pulled image is not the image that was built")?;

    report.step("the upstream is stopped")?;
    upstream.stop().await;
    report.step("a node without the image pulls it again")?;
    let warm = client::pull(cache.port).await?;
    report.pull(&warm, &upstream.take_log())?;
    check(same(&warm, &cold), "the cache and the upstream served different content")?;

    cache.stop().await;
    report.done(&cold)?;
    Ok(())
}

fn same(one: &[Pulled], other: &[Pulled]) -> bool {
    one.iter().map(Pulled::identity).eq(other.iter().map(Pulled::identity))
}

fn check(holds: bool, otherwise: &'static str) -> Result<(), CliError> {
    if holds { Ok(()) } else { Err(CliError::new(otherwise)) }
}

/// Creates a registry client with `upstreams`, for the cache and for each node.
fn client_of(upstreams: Upstreams) -> Result<RegistryClient, CliError> {
    let options = OriginOptions::new(upstreams, Anonymous);
    origin_client(options).map(|(client, _)| client).map_err(CliError::new)
}

/// The cache, assembled as in `kuik serve`, on a free port.
struct LocalCache {
    port: u16,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<usize>,
    pull_through: PullThrough,
}

impl LocalCache {
    async fn start(dir: &Path, upstream_port: u16) -> Result<Self, CliError> {
        let store = Arc::new(FilesystemStore::open(dir).map_err(CliError::new)?.as_cache());
        let upstreams = Upstreams::default()
            .overriding(&format!("{REGISTRY}=http://127.0.0.1:{upstream_port}"))
            .map_err(CliError::new)?;
        let client = client_of(upstreams)?;
        let (options, ports) = (PullThroughOptions::default(), PortForms::default());
        let cache = pull_through_cache(store, &client, options, ports, None, None);
        let listeners = BindAddress::localhost(0).listen().map_err(CliError::new)?;
        let port = upstream::port_of(&listeners)?;
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let serving = tokio::spawn(serve::serve(listeners, cache.frontend, stopped, LIMIT));
        Ok(Self { port, stop, serving, pull_through: cache.pull_through })
    }

    async fn stop(self) {
        drop(self.stop);
        let _ = self.serving.await;
        self.pull_through.drain().await;
    }
}
