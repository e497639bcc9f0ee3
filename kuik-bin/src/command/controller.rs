//! `kuik-controller`: keeps the images that a cluster's pods use.

use std::{
    env,
    fmt::Write as _,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use kube_client::Client;
use kuik_core::{
    controller::{
        self, Controllers, NodePlatforms,
        cached_image::Metrics,
        leader::{Election, Timing},
        rbac, registry_token,
    },
    credentials::Secret,
};
use kuik_proxy::{admin::ReadinessCheck, server::BindAddress};
use tokio::sync::watch;

use super::Failure;
use crate::{
    cache::admin,
    config::controller::{CacheConfig, ControllerConfig, RawController, ServedWebhook},
    controller_metrics::ControllerMetrics,
    copier::copier,
    milestone::Milestone,
    origins::origins_client,
    process::{self, answer_operators},
    shutdown::Stop,
    webhook::Webhook,
};

/// How long to wait before the API server is asked again that did not answer at the start.
const RETRY: Duration = Duration::from_secs(5);

/// How long reviews may take to finish after SIGTERM: no API server waits longer for a webhook.
const LONGEST_REVIEW: Duration = Duration::from_secs(30);

/// Keep the images of a cluster in its cache, for as long as pods use them, and rewrite pods to pull them from there.
///
/// Every image of a pod gets a CachedImage, and its repository a Repository. Images are put into the cache, checked there
/// again and again, and let go of when no pod has used them for --expiry-delay days. Of several replicas with
/// --leader-elect one does so; every one of them is the admission webhook, which kuik-webhook is alone.
///
/// The cluster is the one that this runs in, or the one of KUBECONFIG. SIGTERM hands the lead over, and lets running
/// reviews finish. The exit code is 2 where the configuration is wrong, and 1 where something else is.
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
    let stop = Stop::catch().map_err(Failure::new)?;
    let client = controller::connect().await.map_err(Failure::new)?;
    let CacheConfig { endpoint, fills_itself, .. } = &config.cache;
    let mut origins = config.origins;
    // Who pushes fetches private images itself.
    origins.kubernetes |= !fills_itself;
    let source = origins_client(origins).await?;
    let rules = config.rewriting.pod_rules();
    let namespace =
        config.rewriting.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let identity = identity()?;
    let election =
        Election::new(client.clone(), &*namespace, rbac::LEASE, identity.clone(), Timing::default());
    let leading = if config.leader_elect { election.leading() } else { watch::channel(true).1 };

    let answers = Milestone::new("API server", "it has not answered yet; the log says why");
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
    answer_operators(config.health.into_iter().chain(config.metrics), &admin)?;

    let keeping = async {
        let token = tokio::select! {
            token = token(&client, &namespace, &config.cache) => token?,
            () = stop.asked() => return Ok(()),
        };
        let platforms = NodePlatforms::new(config.platforms);
        let copier = copier(endpoint, token, *fills_itself, Arc::new(source), Arc::new(platforms.clone()))?;
        let made = Controllers::new(rules, copier, config.options, identity).with_metrics(counted);
        let made = controllers.get_or_init(|| Arc::new(made));
        let lead = |client: Client| {
            let platforms = platforms.clone();
            async move {
                platforms.learn(&client).await;
                tokio::join!(made.run(client.clone()), platforms.keep(client));
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
    // None waits for another; where one cannot go on, the others end as they do when they are asked to.
    let (kept, (), served) = tokio::join!(
        Box::pin(or_stop(keeping, &stop)),
        reach(&client, &answers, &stop),
        Box::pin(or_stop(serving, &stop))
    );
    tracing::info!("stopped");
    kept.and(served)
}

/// Does the work, and stops the process where that fails.
async fn or_stop(work: impl Future<Output = Result<(), Failure>>, stop: &Stop) -> Result<(), Failure> {
    let result = work.await;
    if result.is_err() {
        stop.now();
    }
    result
}

/// Answers reviews from when there is a certificate until the process is to stop.
async fn serve(webhook: &Webhook, bind: BindAddress, client: &Client, stop: &Stop) -> Result<(), Failure> {
    match webhook.certificate(Some(client.clone()), stop).await? {
        Some(tls) => {
            process::serve(&[bind], webhook.service(), Some(tls), stop.asked(), LONGEST_REVIEW).await
        }
        None => Ok(()),
    }
}

/// Waits for the first answer of the API server, unless the process is to stop before that.
async fn reach(client: &Client, answers: &Milestone, stop: &Stop) {
    let first_answer = async {
        while let Err(error) = client.apiserver_version().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the API server does not answer");
            tokio::time::sleep(RETRY).await;
        }
        answers.reached();
    };
    tokio::select! {
        () = first_answer => {}
        () = stop.asked() => {}
    }
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
