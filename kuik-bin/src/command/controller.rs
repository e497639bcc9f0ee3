//! `kuik-controller`: keeps the images that a cluster's pods use.

use std::{env, fmt::Write as _, process::ExitCode, sync::Arc, time::Duration};

use kube_client::Client;
use kuik_core::{
    controller::{
        self, Controllers, NodePlatforms,
        cached_image::Metrics,
        leader::{Election, Timing},
        pods::PodRules,
        rbac, registry_token,
    },
    credentials::Secret,
};
use tokio::sync::watch;

use super::Failure;
use crate::{
    cache::admin,
    config::controller::{CacheConfig, ControllerConfig, RawController},
    controller_metrics::ControllerMetrics,
    copier::copier,
    origins::origins_client,
    process::{self, answer_operators},
    shutdown::Signals,
};

/// How long to wait before the API server is asked again that did not answer at the start.
const RETRY: Duration = Duration::from_secs(5);

/// Keep the images of a cluster in its cache, for as long as pods use them.
///
/// Every image of a pod gets a CachedImage, and its repository a Repository. Images are put into the cache, checked there
/// again and again, and let go of when no pod has used them for --expiry-delay days. Of several replicas with
/// --leader-elect one does so.
///
/// The cluster is the one that this runs in, or the one of KUBECONFIG. SIGTERM hands the lead over. The exit code is 2
/// where the configuration is wrong, and 1 where something else is.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik-controller", version)]
pub struct Cli {
    #[command(flatten)]
    raw: RawController,
}

impl Cli {
    /// Runs until it is asked to stop. What goes wrong is said on standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let config = self.raw.validate().map_err(Failure::usage);
        let result = config.and_then(|config| process::run(control(config)));
        Failure::exit_code("kuik-controller", result)
    }
}

async fn control(config: ControllerConfig) -> Result<(), Failure> {
    process::install_log(config.log);
    let signals = Signals::catch().map_err(Failure::new)?;
    let mut stop = std::pin::pin!(signals.asked_to_stop());
    let client = controller::connect().await.map_err(Failure::new)?;
    let namespace = config.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let rules = PodRules::new(config.proxy, Arc::new(config.policy))
        .ignoring_namespaces(config.ignored_namespaces.into_iter().chain([namespace.clone()]));
    let identity = identity()?;

    let platforms = NodePlatforms::new(config.platforms);
    let token = tokio::select! {
        token = token(&client, &namespace, &config.cache) => token?,
        () = &mut stop => return Ok(()),
    };
    let CacheConfig { endpoint, fills_itself, .. } = &config.cache;
    let mut origins = config.origins;
    // Who pushes fetches private images itself.
    origins.kubernetes |= !fills_itself;
    let source = origins_client(origins).await?;
    let copier = copier(endpoint, token, *fills_itself, Arc::new(source), Arc::new(platforms.clone()))?;
    let counted = Metrics::default();
    let controllers =
        Controllers::new(rules, copier, config.options, identity.clone()).with_metrics(counted.clone());
    let controllers = Arc::new(controllers);

    let election = Election::new(client.clone(), namespace, rbac::LEASE, identity, Timing::default());
    let leading = if config.leader_elect { election.leading() } else { watch::channel(true).1 };
    let metrics = ControllerMetrics::new(controllers.clone(), leading);
    let admin = admin("controller", Vec::new(), |registry| {
        counted.register(registry);
        registry.sub_registry_with_prefix("controller").register_collector(Box::new(metrics));
    });
    answer_operators(config.health.into_iter().chain(config.metrics), &admin)?;

    let lead = |client: Client| {
        let (controllers, platforms) = (controllers.clone(), platforms.clone());
        async move {
            tokio::join!(controllers.run(client.clone()), platforms.keep(client));
        }
    };
    if config.leader_elect {
        Box::pin(election.run(stop, lead)).await;
    } else {
        tokio::select! {
            () = lead(client) => {}
            () = &mut stop => {}
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// The token of the cache; waits for the API server where it is away.
async fn token(client: &Client, namespace: &str, cache: &CacheConfig) -> Result<Option<Secret>, Failure> {
    let Some(name) = &cache.token_secret else { return Ok(None) };
    let fresh = Secret::from(random_hex::<32>()?);
    loop {
        match registry_token(client, namespace, name, &fresh).await {
            Ok(token) => return Ok(Some(token)),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the cache cannot be written to yet"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// What tells this process from every other one: the pod's name, and something random.
fn identity() -> Result<String, Failure> {
    let name = env::var("POD_NAME")
        .or_else(|_| env::var("HOSTNAME"))
        .unwrap_or_else(|_| "kuik-controller".to_owned());
    Ok(format!("{name}_{}", random_hex::<4>()?))
}

fn random_hex<const BYTES: usize>() -> Result<String, Failure> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).map_err(|error| Failure::new(format!("there is no randomness: {error}")))?;
    let mut text = String::with_capacity(BYTES * 2);
    for byte in random {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
