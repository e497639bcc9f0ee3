//! Configuration of `kuik-controller`: its flags and their validated form.

use std::{num::NonZeroUsize, path::PathBuf, str::FromStr as _, time::Duration};

use crate::rbac;
use kuik_core::{client::CacheEndpoint, controller::cached_image, copy::Platforms, retention::ClusterId};
use kuik_proxy::serve::{BindAddress, Tls};

use super::{
    ConfigFile, InvalidConfig, Problems,
    cache_access::{CacheAccess, RawCacheAccess},
    certificates::{CertificatesConfig, RawCertificates},
    origins::{OriginsConfig, RawOrigins},
    process::{LogConfig, RawLog},
    rewriting::{RawRewriting, RewritingConfig},
    tls::{self, RawTls},
    value::{address, duration, parsed, switch},
};

/// Unvalidated configuration of `kuik-controller`.
#[derive(Debug, Default, clap::Args)]
pub struct RawController {
    /// Elect one of several replicas as the leader, over a Lease [default: false]
    #[arg(long, env = "KUIK_LEADER_ELECT", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    leader_elect: Option<String>,
    /// Additional listen address of /metrics, /healthz and /readyz: HOST:PORT, or 0 for none [default: 0]
    #[arg(long, env = "KUIK_METRICS_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    metrics_bind_address: Option<String>,
    /// Listen address of /healthz, /readyz and /metrics: HOST:PORT, or 0 for none [default: :8081]
    #[arg(long, env = "KUIK_HEALTH_PROBE_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    health_probe_bind_address: Option<String>,
    /// Days to keep an unused image [default: 30]
    #[arg(long, env = "KUIK_EXPIRY_DELAY", hide_env_values = true, value_name = "DAYS")]
    expiry_delay: Option<String>,
    /// Interval of verifying the status of each image against the cache [default: 50s]
    #[arg(long, env = "KUIK_VERIFY_INTERVAL", hide_env_values = true, value_name = "DURATION")]
    verify_interval: Option<String>,
    /// Platform to cache of multi-platform images: amd64, linux/arm64, linux/arm/v7, or auto for those of the nodes;
    /// repeatable [default: all]
    #[arg(long, env = "KUIK_ARCH", hide_env_values = true, value_name = "PLATFORM", value_delimiter = ',')]
    arch: Vec<String>,
    /// Address of the cache registry: HOST:PORT over plain HTTP, or a URL such as https://HOST:PORT
    /// [default: kube-image-keeper-registry:5000]
    #[arg(long, env = "KUIK_REGISTRY_ENDPOINT", hide_env_values = true, value_name = "ADDRESS")]
    registry_endpoint: Option<String>,
    #[command(flatten)]
    access: RawCacheAccess,
    /// Kind of the cache registry: `kuik` fetches missing images itself, `oci` is any other registry, and images are
    /// pushed to it [default: kuik]
    #[arg(long, env = "KUIK_REGISTRY_KIND", hide_env_values = true, value_name = "KIND")]
    registry_kind: Option<String>,
    /// Secret with the token for writing to the cache, created if missing, and read again when the cache refuses the
    /// token; empty if no token is needed, as by default with --registry-credentials-file
    /// [default: kuik-registry-token]
    #[arg(long, env = "KUIK_REGISTRY_TOKEN_SECRET", hide_env_values = true, value_name = "NAME")]
    registry_token_secret: Option<String>,
    /// ID under which the cache knows this cluster: clusters that share a cache need different ones
    /// [default: UID of the namespace kube-system]
    #[arg(long, env = "KUIK_CLUSTER_ID", hide_env_values = true, value_name = "ID")]
    cluster_id: Option<String>,
    /// Maximum number of images to copy into the cache concurrently [default: 3]
    #[arg(
        long,
        env = "KUIK_MAX_CONCURRENT_CACHED_IMAGE_RECONCILES",
        hide_env_values = true,
        value_name = "N"
    )]
    max_concurrent_cached_image_reconciles: Option<String>,
    /// Listen address of the admission webhook, on every replica: HOST:PORT, or 0 for no webhook [default: :9443]
    #[arg(long, env = "KUIK_WEBHOOK_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    webhook_bind_address: Option<String>,
    #[command(flatten)]
    tls: RawTls,
    #[command(flatten)]
    certificates: RawCertificates,
    #[command(flatten)]
    rewriting: RawRewriting,
    #[command(flatten)]
    origins: RawOrigins,
    #[command(flatten)]
    log: RawLog,
    /// YAML configuration file: the same settings, in camel case; flags and environment variables take precedence
    #[arg(long, env = "KUIK_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// A valid configuration of `kuik-controller`.
#[derive(Debug)]
pub struct ControllerConfig {
    /// Whether a leader is elected.
    pub leader_elect: bool,
    /// Additional address of the admin endpoints.
    pub metrics: Option<BindAddress>,
    /// Address of the probes and other admin endpoints.
    pub health: Option<BindAddress>,
    /// The webhook, if enabled.
    pub webhook: Option<ServedWebhook>,
    /// Selects the images that are rewritten, and so cached.
    pub rewriting: RewritingConfig,
    /// Platforms to cache.
    pub platforms: Platforms,
    /// The cache.
    pub cache: CacheConfig,
    /// Options of the CachedImage controller.
    pub options: cached_image::Options,
    /// Upstream registries.
    pub origins: OriginsConfig,
    /// Log filter and format.
    pub log: LogConfig,
}

/// How the webhook is served.
#[derive(Debug)]
pub struct ServedWebhook {
    /// Listen address.
    pub bind: BindAddress,
    /// Certificate from files, if given.
    pub tls: Option<Tls>,
    /// Objects of the self-managed certificate, used without `tls`.
    pub certificates: CertificatesConfig,
}

/// The cache registry.
#[derive(Debug)]
pub struct CacheConfig {
    /// Its address.
    pub endpoint: CacheEndpoint,
    /// How it is accessed.
    pub access: CacheAccess,
    /// Whether it fetches missing images itself.
    pub fills_itself: bool,
    /// Secret with its token, if it needs one.
    pub token_secret: Option<String>,
    /// ID under which it knows this cluster, if not that of the cluster.
    pub cluster_id: Option<ClusterId>,
}

const LEADER_ELECT: &str = "leader-elect";
const METRICS: &str = "metrics-bind-address";
const HEALTH: &str = "health-probe-bind-address";
const EXPIRY: &str = "expiry-delay";
const VERIFY: &str = "verify-interval";
const ARCH: &str = "arch";
const ENDPOINT: &str = "registry-endpoint";
const KIND: &str = "registry-kind";
const TOKEN: &str = "registry-token-secret";
const CLUSTER: &str = "cluster-id";
const CONCURRENT: &str = "max-concurrent-cached-image-reconciles";
const WEBHOOK: &str = "webhook-bind-address";
const KEYS: [&str; 14] = [
    LEADER_ELECT,
    METRICS,
    HEALTH,
    EXPIRY,
    VERIFY,
    ARCH,
    ENDPOINT,
    KIND,
    TOKEN,
    CLUSTER,
    CONCURRENT,
    WEBHOOK,
    tls::CERTIFICATE,
    tls::KEY,
];

/// Default address of the cache.
const DEFAULT_ENDPOINT: &str = "kube-image-keeper-registry:5000";

/// Minimum verify interval, which bounds the load on the cache.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

const DAY: u32 = 24 * 60 * 60;

impl RawController {
    /// Validates the configuration.
    ///
    /// # Errors
    /// Returns an error that lists every invalid setting.
    pub fn validate(self) -> Result<ControllerConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 6] = [
            &KEYS,
            &RawCacheAccess::KEYS,
            &RawCertificates::KEYS,
            &RawRewriting::KEYS,
            &RawOrigins::KEYS,
            &RawLog::KEYS,
        ];
        let file = ConfigFile::named(self.config.as_deref(), &groups, &mut problems);
        let config = self.merge_file(&file).read(&file, &mut problems);
        problems.into_result(config)
    }

    /// Returns these values, with unset ones taken from the file.
    fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            leader_elect: file.one(LEADER_ELECT, self.leader_elect),
            metrics_bind_address: file.one(METRICS, self.metrics_bind_address),
            health_probe_bind_address: file.one(HEALTH, self.health_probe_bind_address),
            expiry_delay: file.one(EXPIRY, self.expiry_delay),
            verify_interval: file.one(VERIFY, self.verify_interval),
            arch: file.list(ARCH, self.arch),
            registry_endpoint: file.one(ENDPOINT, self.registry_endpoint),
            access: self.access.merge_file(file),
            registry_kind: file.one(KIND, self.registry_kind),
            registry_token_secret: file.one(TOKEN, self.registry_token_secret),
            cluster_id: file.one(CLUSTER, self.cluster_id),
            max_concurrent_cached_image_reconciles: file
                .one(CONCURRENT, self.max_concurrent_cached_image_reconciles),
            webhook_bind_address: file.one(WEBHOOK, self.webhook_bind_address),
            tls: self.tls.merge_file(file),
            certificates: self.certificates,
            rewriting: self.rewriting.merge_file(file),
            origins: self.origins.merge_file(file),
            log: self.log.merge_file(file),
            config: self.config,
        }
    }

    /// Returns `None` only if a problem was added.
    fn read(self, file: &ConfigFile, problems: &mut Problems) -> Option<ControllerConfig> {
        let leader_elect = switch(LEADER_ELECT, self.leader_elect.as_deref(), false, problems);
        let metrics = address(METRICS, self.metrics_bind_address.as_deref(), "0", problems);
        let health = address(HEALTH, self.health_probe_bind_address.as_deref(), ":8081", problems);
        let bind = address(WEBHOOK, self.webhook_bind_address.as_deref(), ":9443", problems);
        let (tls, certificates) = (self.tls.read(problems), self.certificates.read(file));
        let rewriting = self.rewriting.read(&self.origins.insecure_registries, problems);
        let platforms = match self.arch.as_slice() {
            [] => Some(Platforms::all()),
            texts => problems.check(ARCH, Platforms::parse(texts.iter().map(String::as_str))),
        };
        let mut options = cached_image::Options::default();
        let days: u32 = parsed(EXPIRY, self.expiry_delay.as_deref(), 30, "a number of days", problems);
        options.expiry_delay = Duration::from_secs(u64::from(days) * u64::from(DAY));
        let interval = duration(VERIFY, self.verify_interval.as_deref(), options.verify_interval, problems);
        if interval < SHORTEST_INTERVAL {
            problems.add(VERIFY, format_args!("must be at least {SHORTEST_INTERVAL:?}"));
        }
        options.verify_interval = interval;
        let concurrent = self.max_concurrent_cached_image_reconciles;
        if let Some(most) = NonZeroUsize::new(3) {
            let most = parsed(CONCURRENT, concurrent.as_deref(), most, "a number from 1", problems);
            options.max_concurrent_copies = most.get();
        }
        let endpoint = self.registry_endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
        let endpoint = problems.check(ENDPOINT, CacheEndpoint::from_str(endpoint));
        let access = self.access.read(problems);
        let fills_itself = match self.registry_kind.as_deref() {
            None | Some("kuik") => true,
            Some("oci") => false,
            Some(other) => {
                problems.add(KIND, format_args!("{other:?} is neither kuik nor oci"));
                true
            }
        };
        let default_secret = || access.credentials.is_none().then(|| rbac::TOKEN_SECRET.to_owned());
        let token_secret = self.registry_token_secret.or_else(default_secret);
        let token_secret = token_secret.filter(|name| !name.is_empty());
        let cluster_id = self.cluster_id.filter(|id| !id.is_empty());
        let cluster_id = cluster_id.and_then(|id| problems.check(CLUSTER, id.parse()));
        let origins = self.origins.read(problems);
        let cache = CacheConfig { endpoint: endpoint?, access, fills_itself, token_secret, cluster_id };
        Some(ControllerConfig {
            leader_elect,
            metrics,
            health,
            webhook: bind.map(|bind| ServedWebhook { bind, tls, certificates }),
            rewriting: rewriting?,
            platforms: platforms?,
            cache,
            options,
            origins,
            log: self.log.read(problems)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = RawController::default().validate().unwrap();
        assert!(!config.leader_elect && config.metrics.is_none());
        assert_eq!(config.health, Some(BindAddress::any(8081)));
        assert_eq!(config.options.expiry_delay, Duration::from_secs(30 * 24 * 3600));
        assert_eq!(config.options.verify_interval, Duration::from_secs(50));
        assert_eq!(config.rewriting.proxy.as_str(), "localhost:8082");
        assert_eq!(config.options.max_concurrent_copies, 3);
        assert_eq!(config.cache.endpoint.authority(), DEFAULT_ENDPOINT);
        assert_eq!(config.cache.token_secret.as_deref(), Some("kuik-registry-token"));
        assert!(config.cache.fills_itself);
        assert!(config.rewriting.ignored.contains("kube-system"));
        let webhook = config.webhook.unwrap();
        assert_eq!(webhook.bind, BindAddress::any(9443));
        assert!(webhook.tls.is_none());
        assert_eq!(webhook.certificates.configuration, "kube-image-keeper-webhook");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let raw = RawController {
            leader_elect: text("perhaps"),
            metrics_bind_address: text("8080"),
            health_probe_bind_address: text("nowhere"),
            expiry_delay: text("-1"),
            verify_interval: text("1ms"),
            webhook_bind_address: text("9443"),
            tls: RawTls { tls_cert_file: text("/absent"), ..RawTls::default() },
            rewriting: RawRewriting { proxy_port: text("70000"), ..RawRewriting::default() },
            arch: vec!["a/b/c/d".to_owned()],
            registry_endpoint: text("ftp://cache"),
            registry_kind: text("other"),
            cluster_id: text("Not an ID"),
            max_concurrent_cached_image_reconciles: text("0"),
            ..RawController::default()
        };
        let report = raw.validate().unwrap_err().to_string();
        let wrong = [
            LEADER_ELECT,
            METRICS,
            HEALTH,
            EXPIRY,
            VERIFY,
            WEBHOOK,
            tls::CERTIFICATE,
            "proxy-port",
            ARCH,
            ENDPOINT,
            KIND,
            CLUSTER,
            CONCURRENT,
        ];
        for key in wrong {
            assert!(report.contains(&format!("\n  {key}: ")), "{key} is missing:\n{report}");
        }
    }

    #[test]
    fn a_file_can_say_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kuik.yaml");
        let lines = "leaderElect: true\nnamespace: kuik\nmetricsBindAddress: ':8080'\nhealthProbeBindAddress: 0\n\
                     expiryDelay: 1\nproxyPort: 7439\nignoreImages: ['a,b', c]\nacceptImages: [d]\n\
                     ignorePullPolicyAlways: false\nignoreNamespaces: [x]\narch: [amd64, linux/arm/v7]\n\
                     registryEndpoint: cache:5000\nregistryKind: oci\nregistryTokenSecret: ''\nclusterId: prod\n\
                     maxConcurrentCachedImageReconciles: 7\nlog: debug\nverifyInterval: 2s\n\
                     webhookBindAddress: 0\ncertificateSecret: s\n";
        fs::write(&path, lines).unwrap();
        let config = RawController { config: Some(path), ..RawController::default() }.validate().unwrap();
        assert!(config.leader_elect && config.health.is_none() && config.metrics.is_some());
        assert_eq!(config.rewriting.namespace.as_deref(), Some("kuik"));
        let port = config.rewriting.proxy.as_str();
        assert_eq!((port, config.options.max_concurrent_copies), ("localhost:7439", 7));
        assert_eq!(config.options.verify_interval, Duration::from_secs(2));
        assert!(!config.cache.fills_itself && config.cache.token_secret.is_none());
        assert_eq!(config.cache.cluster_id.unwrap().as_str(), "prod");
        assert!(config.webhook.is_none());
        let ignored: Vec<_> = config.rewriting.ignored.iter().map(String::as_str).collect();
        assert_eq!(ignored, ["kube-system", "kuik", "x"]);
    }
}
