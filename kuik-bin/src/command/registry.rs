//! `kuik-registry`: a complete registry, which is where a cluster's images are kept.

use std::{process::ExitCode, sync::Arc};

use kuik_proxy::{
    gc::Announcements,
    pull_through::PullThroughOptions,
    store::{FilesystemStore, ObjectStorage},
};

use super::Failure;
use crate::{
    config::{
        origins::OriginsConfig,
        registry::{RawRegistry, RegistryConfig},
        storage::Storage,
    },
    keeping::Keeping,
    origins::origins_client,
    process::{self, Process},
    registry::{Kept, Origins, registry},
};

/// Keep container images, as a complete registry: pull, push, discovery and management of the OCI distribution
/// specification.
///
/// Content is kept in the layout of Docker's registry: a volume or a bucket that it wrote is served as it is, and can be
/// given back. With --pull-through, repositories are named after the registries that they come from, and what is missing
/// is fetched from there once and kept.
///
/// What nothing refers to is removed while the registry serves (--gc-interval), or when somebody asks for it:
/// POST /kuik/v1/gc, with ?dry-run=true to be told what would go.
///
/// /healthz, /readyz and /metrics are answered on the same addresses. SIGTERM lets running requests finish. The exit
/// code is 2 where the configuration is wrong, and 1 where something else is.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik-registry", version)]
pub struct Cli {
    #[command(flatten)]
    raw: RawRegistry,
}

impl Cli {
    /// Serves until it is asked to stop. What goes wrong is said on standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let config = self.raw.validate().map_err(Failure::usage);
        let result = config.and_then(|config| process::run(serve(config)));
        Failure::exit_code("kuik-registry", result)
    }
}

async fn serve(config: RegistryConfig) -> Result<(), Failure> {
    let process = Process::start(config.process)?;
    let kept = open(config.storage)?;
    let origins = match config.pull_through {
        Some(config) => Some(origins(config).await?),
        None => None,
    };
    if config.access.allow_anonymous_push {
        tracing::warn!("everybody who reaches this registry may push to it and delete from it");
    }
    let keeping = Keeping::of(kept, config.quota, config.scrub, config.gc);
    let registry = registry(keeping, origins, config.access, config.options, process.tls().as_ref());
    tracing::info!(pull_through = registry.pull_through.is_some(), "content is kept");
    let tasks = registry.keeping.tasks(registry.pull_through.clone());
    let tasks: Vec<_> = tasks.into_iter().map(|task| AbortOnDrop(tokio::spawn(task))).collect();
    let frontend = registry.frontend.recorded_by(process.sink());
    let served = process.serve(frontend, registry.pull_through).await;
    drop(tasks);
    registry.keeping.end().await;
    served
}

fn open(storage: Storage) -> Result<Kept, Failure> {
    match storage {
        Storage::Directory(dir) => {
            let store = FilesystemStore::open(&dir).map_err(Failure::new)?;
            tracing::info!(dir = %dir.display(), "the store is a directory");
            // What can be fetched again is not waited for; what is pushed is.
            let fetched = Arc::new(store.as_cache());
            Ok(Kept { fetched, pushed: Arc::new(store), redirects: false, announcements: None })
        }
        Storage::Bucket { options, scratch_dir, redirects } => {
            let store = ObjectStorage::open(&options, &scratch_dir).map_err(Failure::usage)?;
            tracing::info!(bucket = options.name(), scratch_dir = %scratch_dir.display(), "the store is a bucket");
            let announcements = Some(Arc::new(store.clone()) as Arc<dyn Announcements>);
            Ok(Kept { fetched: Arc::new(store.clone()), pushed: Arc::new(store), redirects, announcements })
        }
    }
}

/// A task that ends with the command.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn origins(config: OriginsConfig) -> Result<Origins, Failure> {
    let mut options = PullThroughOptions::default();
    options.revalidate = config.revalidate;
    let ports = config.ports;
    Ok(Origins { source: origins_client(config).await?, options, ports })
}
