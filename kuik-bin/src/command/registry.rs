//! `kuik-registry`: a complete OCI registry, and the pull-through cache of a cluster.

use std::process::ExitCode;
#[cfg(feature = "object-storage")]
use std::sync::Arc;

#[cfg(feature = "object-storage")]
use kuik_proxy::{maintenance::gc::RemovalIntents, store::ObjectStorage};
use kuik_proxy::{
    pull_through::PullThroughOptions,
    stack::{self, Origins, StoreMaintenance, registry},
};

use crate::cli_error::CliError;
use crate::{
    config::{
        origins::OriginsConfig,
        process::bind_address_help,
        registry::{RawRegistry, RegistryConfig},
        storage::Storage,
    },
    maintenance::{MaintenanceTasks, open_directory},
    origins::origins_client,
    process::{self, Process},
};

/// Serve an OCI registry over a directory or a bucket: pull, push, content discovery and content management.
///
/// Content is stored in the layout of Docker's registry: an existing volume or bucket is served as it is, and Docker's
/// registry can serve it again later. With --pull-through, repositories are named after upstream registries, and missing
/// content is fetched from there once and stored.
///
/// Garbage collection runs online (--gc-interval), or on request: POST /kuik/v1/gc, with ?dry-run=true to list what would
/// be removed.
///
/// /healthz, /readyz and /metrics are served on the same addresses. SIGTERM lets running requests finish. The exit code is
/// 2 if the configuration is invalid, and 1 after any other failure.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik-registry", version)]
#[command(mut_arg("bind_address", |arg| arg.help(bind_address_help!(":5000"))))]
pub struct Cli {
    #[command(flatten)]
    raw: RawRegistry,
}

impl Cli {
    /// Serves until a signal stops it. Errors are printed to standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let config = self.raw.validate().map_err(CliError::usage);
        let result = config.and_then(|config| process::run(serve(config)));
        CliError::exit_code("kuik-registry", result)
    }
}

async fn serve(config: RegistryConfig) -> Result<(), CliError> {
    let process = Process::start(config.process)?;
    let storage = open(config.storage)?;
    let origins = match config.pull_through {
        Some(config) => Some(origins(config).await?),
        None => None,
    };
    if config.access.allow_anonymous_push {
        tracing::warn!("anonymous pushes and deletes are allowed for every client");
    }
    let maintenance = StoreMaintenance::new(storage, config.maintenance);
    let (tls, traces) = (process.tls(), process.sink());
    let registry = registry(maintenance, origins, config.access, config.options, tls.as_ref(), traces);
    tracing::info!(pull_through = registry.pull_through.is_some(), "registry is starting");
    let tasks = MaintenanceTasks::spawn(&registry.maintenance, registry.pull_through.as_ref());
    let served = process.serve(registry.frontend, registry.pull_through).await;
    drop(tasks);
    registry.maintenance.end().await;
    served
}

fn open(storage: Storage) -> Result<stack::Storage, CliError> {
    match storage {
        Storage::Directory(dir) => {
            let storage = open_directory(&dir)?;
            tracing::info!(dir = %dir.display(), "storing content in a directory");
            Ok(storage)
        }
        #[cfg(not(feature = "object-storage"))]
        Storage::Bucket { .. } => Err(CliError::no_object_storage()),
        #[cfg(feature = "object-storage")]
        Storage::Bucket { options, scratch_dir, redirects } => {
            let store = ObjectStorage::open(&options, &scratch_dir).map_err(CliError::usage)?;
            tracing::info!(bucket = options.name(), scratch_dir = %scratch_dir.display(), "storing content in a bucket");
            let announcements = Some(Arc::new(store.clone()) as Arc<dyn RemovalIntents>);
            Ok(stack::Storage {
                fetched: Arc::new(store.clone()),
                pushed: Arc::new(store),
                redirects,
                announcements,
            })
        }
    }
}

async fn origins(config: OriginsConfig) -> Result<Origins, CliError> {
    let mut options = PullThroughOptions::default();
    options.revalidate = config.revalidate;
    let ports = config.ports;
    Ok(Origins { source: origins_client(config).await?, options, ports })
}
