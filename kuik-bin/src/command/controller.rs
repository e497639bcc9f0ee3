//! `kuik-controller`: the controllers of CachedImages and Repositories, and the admission webhook.

use std::{
    env,
    fmt::Write as _,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::rbac;
use kube_client::Client;
use kuik_core::{
    controller::{
        self, ApiErrorKind, Manager, NodePlatforms, RegistryToken,
        cached_image::Metrics,
        leader::{Election, Timing},
        retention::{self, ClusterIdError, RetentionReporter, cluster_id},
    },
    credentials::{Providers, Secret},
    retention::ClusterId,
};
use kuik_proxy::serve::{BindAddress, admin::ReadinessCheck};
use tokio::sync::watch;

use crate::cli_error::CliError;
use kuik_proxy::stack::admin;

use crate::{
    ca_reload,
    config::controller::{CacheConfig, ControllerConfig, RawController, ServedWebhook},
    controller_metrics::ControllerMetrics,
    copier::{cache_client, copier},
    origins::origins_client,
    process::{self, serve_admin},
    readiness::Milestone,
    shutdown::Stop,
    webhook::Webhook,
};

/// Delay between connection attempts to the API server at startup.
const RETRY: Duration = Duration::from_secs(5);

/// Time limit for running reviews after SIGTERM: the maximum webhook timeout of an API server.
const LONGEST_REVIEW: Duration = Duration::from_secs(30);

/// Cache the images that pods of a cluster use, and rewrite pods to pull them from the cache.
///
/// Creates a CachedImage for each image of a pod and a Repository for each repository. Images are copied into the cache,
/// verified there periodically, and deleted after no pod has used them for --expiry-delay days. With --leader-elect, one of
/// several replicas runs the controllers; every replica serves the admission webhook.
///
/// The cluster is that of this pod, or of KUBECONFIG. SIGTERM releases the leader lease and lets running reviews finish.
/// The exit code is 2 if the configuration is invalid, and 1 after any other failure.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik-controller", version)]
pub struct Cli {
    #[command(flatten)]
    raw: RawController,
}

impl Cli {
    /// Runs until a signal stops it. Errors are printed to standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let config = self.raw.validate().map_err(CliError::usage);
        let result = config.and_then(|config| process::run(control(config)));
        CliError::exit_code("kuik-controller", result)
    }
}

async fn control(config: ControllerConfig) -> Result<(), CliError> {
    process::install_log(config.log);
    let stop = Stop::catch().map_err(CliError::new)?;
    let client = controller::connect().await.map_err(CliError::new)?;
    let CacheConfig { endpoint, access, fills_itself, token_secret, cluster_id } = config.cache;
    let mut origins = config.origins;
    // Without a pull-through cache, this process fetches private images and pushes them.
    origins.kubernetes |= !fills_itself;
    let source = origins_client(origins).await?;
    let rules = config.rewriting.pod_rules();
    let namespace =
        config.rewriting.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let identity = identity()?;
    let election =
        Election::new(client.clone(), &*namespace, rbac::LEASE, identity.clone(), Timing::default());
    let leading = if config.leader_elect { election.leading() } else { watch::channel(true).1 };

    let answers = Milestone::new("API server", "it has not responded yet; see the log for the reason");
    let webhook = config.webhook.map(|ServedWebhook { bind, tls, certificates }| {
        (Webhook::new(&config.rewriting, tls, certificates), bind)
    });
    let (counted, controllers) = (Metrics::default(), Arc::new(OnceLock::new()));
    let metrics = ControllerMetrics::new(controllers.clone(), leading);
    let checks: [Option<Box<dyn ReadinessCheck>>; 2] =
        [Some(Box::new(answers.clone())), webhook.as_ref().map(|(webhook, _)| webhook.readiness())];
    let admin = admin("controller", checks.into_iter().flatten().collect(), |registry| {
        counted.register(registry);
        registry.sub_registry_with_prefix("controller").register_collector(Box::new(metrics));
        if let Some((webhook, _)) = &webhook {
            webhook.register(registry);
        }
    });
    serve_admin(config.health.into_iter().chain(config.metrics), &admin)?;

    let keeping = async {
        let mut credentials = Providers::default();
        credentials = access.credentials.into_iter().fold(credentials, |all, one| all.and(Arc::new(one)));
        if let Some(name) = token_secret {
            let fresh = Secret::from(random_hex::<32>()?);
            let token = RegistryToken::new(client.clone(), &*namespace, name, fresh);
            tokio::select! {
                // The registry starts when its Secret exists.
                () = create(&token) => {}
                () = stop.asked() => return Ok(()),
            }
            credentials = credentials.and(Arc::new(token));
        }
        let (mut cache, transport) = cache_client(&endpoint, access.roots, credentials)?;
        // It ends with the process.
        tokio::spawn(ca_reload::keep(access.root_files, move |roots| transport.trust(roots)));
        let cluster = tokio::select! {
            cluster = identify(&client, cluster_id) => cluster,
            () = stop.asked() => return Ok(()),
        };
        if let Some(cluster) = &cluster {
            cache = cache.for_cluster(cluster.clone());
        }
        let platforms = NodePlatforms::new(config.platforms);
        let copier = copier(cache.clone(), fills_itself, Arc::new(source), Arc::new(platforms.clone()));
        let mut timing = retention::Timing::default();
        timing.verify = config.options.verify_interval;
        let mut made = Manager::new(rules, copier, config.options, identity).with_metrics(counted);
        if let Some(cluster) = cluster {
            made = made.with_retention(RetentionReporter::new(Arc::new(cache), cluster, timing));
        }
        let made = controllers.get_or_init(|| Arc::new(made));
        let lead = |client: Client| {
            let platforms = platforms.clone();
            async move {
                platforms.learn(&client).await;
                tokio::join!(made.run(client.clone()), platforms.watch(client));
            }
        };
        if config.leader_elect {
            Box::pin(election.run(stop.asked(), lead)).await;
        } else {
            tokio::select! {
                () = lead(client.clone()) => {}
                () = stop.asked() => {}
            }
        }
        Ok(())
    };
    let serving = async {
        match webhook {
            Some((webhook, bind)) => serve(&webhook, bind, &client, &stop).await,
            None => Ok(()),
        }
    };
    // These run independently; if one fails, the others stop as after a signal.
    let (kept, (), served) = tokio::join!(
        Box::pin(or_stop(keeping, &stop)),
        reach(&client, &answers, &stop),
        Box::pin(or_stop(serving, &stop))
    );
    tracing::info!("stopped");
    kept.and(served)
}

/// Runs `work`, and stops the process if it fails.
async fn or_stop(work: impl Future<Output = Result<(), CliError>>, stop: &Stop) -> Result<(), CliError> {
    let result = work.await;
    if result.is_err() {
        stop.now();
    }
    result
}

/// Serves reviews once there is a certificate, until the process stops.
async fn serve(webhook: &Webhook, bind: BindAddress, client: &Client, stop: &Stop) -> Result<(), CliError> {
    match webhook.certificate(Some(client.clone()), stop).await? {
        Some(tls) => {
            process::serve(&[bind], webhook.service(), Some(tls), stop.asked(), LONGEST_REVIEW).await
        }
        None => Ok(()),
    }
}

/// Waits for the first response of the API server, or until the process stops.
async fn reach(client: &Client, answers: &Milestone, stop: &Stop) {
    let first_answer = async {
        while let Err(error) = client.apiserver_version().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the API server does not respond, retrying"
            );
            tokio::time::sleep(RETRY).await;
        }
        answers.reached();
    };
    tokio::select! {
        () = first_answer => {}
        () = stop.asked() => {}
    }
}

/// Reads the token of the cache, and so creates its Secret; waits while the API server is unavailable.
async fn create(token: &RegistryToken) {
    while let Err(error) = token.read().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot read the token of the cache, retrying"
        );
        tokio::time::sleep(RETRY).await;
    }
}

/// Returns the ID under which the cache knows this cluster; waits while the API server is unavailable. `None` if it may
/// not be read.
async fn identify(client: &Client, configured: Option<ClusterId>) -> Option<ClusterId> {
    if configured.is_some() {
        return configured;
    }
    loop {
        match cluster_id(client).await {
            Ok(cluster) => return Some(cluster),
            Err(ClusterIdError::Api(error)) if error.kind() != ApiErrorKind::Forbidden => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot read the ID of the cluster, retrying");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "cannot read the ID of the cluster, not reporting its images to the cache: set --cluster-id"
                );
                return None;
            }
        }
    }
}

/// Returns a unique identity of this process: the pod's name and a random suffix.
fn identity() -> Result<String, CliError> {
    let name = env::var("POD_NAME")
        .or_else(|_| env::var("HOSTNAME"))
        .unwrap_or_else(|_| "kuik-controller".to_owned());
    Ok(format!("{name}_{}", random_hex::<4>()?))
}

fn random_hex<const BYTES: usize>() -> Result<String, CliError> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| CliError::new(format!("cannot get random bytes: {error}")))?;
    let mut text = String::with_capacity(BYTES * 2);
    for byte in random {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
