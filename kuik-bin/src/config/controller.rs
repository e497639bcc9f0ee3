//! The configuration of `kuik-controller`: its flags, and what they mean once they are valid.

use std::{num::NonZeroUsize, path::PathBuf, str::FromStr as _, time::Duration};

use kuik_core::{
    controller::{cached_image, rbac},
    copy::Platforms,
    registry::HostPort,
};
use kuik_proxy::server::{BindAddress, Tls};

use super::{
    ConfigFile, InvalidConfig, Problems,
    certificates::{CertificatesConfig, RawCertificates},
    origins::{OriginsConfig, RawOrigins},
    process::{LogConfig, RawLog},
    rewriting::{RawRewriting, RewritingConfig},
    tls::{self, RawTls},
    value::{address, duration, parsed, switch},
};

/// What `kuik-controller` is told, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawController {
    /// Let one of several replicas lead, by a Lease: true or false [default: false]
    #[arg(long, env = "KUIK_LEADER_ELECT", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    leader_elect: Option<String>,
    /// Where to answer /metrics, /healthz and /readyz besides: HOST:PORT, or 0 for nowhere else [default: 0]
    #[arg(long, env = "KUIK_METRICS_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    metrics_bind_address: Option<String>,
    /// Where to answer /healthz, /readyz and /metrics: HOST:PORT, or 0 for nowhere [default: :8081]
    #[arg(long, env = "KUIK_HEALTH_PROBE_BIND_ADDRESS", hide_env_values = true, value_name = "ADDR")]
    health_probe_bind_address: Option<String>,
    /// After how many days an image goes that no pod uses [default: 30]
    #[arg(long, env = "KUIK_EXPIRY_DELAY", hide_env_values = true, value_name = "DAYS")]
    expiry_delay: Option<String>,
    /// How often what the status of an image says is checked against the cache [default: 50s]
    #[arg(long, env = "KUIK_VERIFY_INTERVAL", hide_env_values = true, value_name = "DURATION")]
    verify_interval: Option<String>,
    /// Keep this platform of images that have several: amd64, linux/arm64, linux/arm/v7, or auto for those of the nodes;
    /// may be given several times [default: all]
    #[arg(long, env = "KUIK_ARCH", hide_env_values = true, value_name = "PLATFORM", value_delimiter = ',')]
    arch: Vec<String>,
    /// The cache: HOST:PORT of a registry, over plain http [default: kube-image-keeper-registry:5000]
    #[arg(long, env = "KUIK_REGISTRY_ENDPOINT", hide_env_values = true, value_name = "HOST:PORT")]
    registry_endpoint: Option<String>,
    /// What the cache is: `kuik`, which fetches itself what it is asked for, or any `oci` registry, which images are
    /// pushed to [default: kuik]
    #[arg(long, env = "KUIK_REGISTRY_KIND", hide_env_values = true, value_name = "KIND")]
    registry_kind: Option<String>,
    /// The Secret with the token that opens the cache for writing; it is made where there is none, and empty means that
    /// no token is needed [default: kuik-registry-token]
    #[arg(long, env = "KUIK_REGISTRY_TOKEN_SECRET", hide_env_values = true, value_name = "NAME")]
    registry_token_secret: Option<String>,
    /// How many images are put into the cache at a time [default: 3]
    #[arg(
        long,
        env = "KUIK_MAX_CONCURRENT_CACHED_IMAGE_RECONCILES",
        hide_env_values = true,
        value_name = "N"
    )]
    max_concurrent_cached_image_reconciles: Option<String>,
    /// Where the admission webhook listens, on every replica: HOST:PORT, or 0 for no webhook [default: :9443]
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
    /// A YAML file with any of these settings, their names in camel case; flags and environment win over it
    #[arg(long, env = "KUIK_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// A valid configuration of `kuik-controller`.
#[derive(Debug)]
pub struct ControllerConfig {
    /// Whether a leader is elected.
    pub leader_elect: bool,
    /// Where operators ask, besides.
    pub metrics: Option<BindAddress>,
    /// Where the kubelet and operators ask.
    pub health: Option<BindAddress>,
    /// The webhook, where there is one.
    pub webhook: Option<ServedWebhook>,
    /// Which images are rewritten, and so kept.
    pub rewriting: RewritingConfig,
    /// Which platforms are kept.
    pub platforms: Platforms,
    /// The cache.
    pub cache: CacheConfig,
    /// How images are looked after.
    pub options: cached_image::Options,
    /// Other registries.
    pub origins: OriginsConfig,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// How the webhook is served.
#[derive(Debug)]
pub struct ServedWebhook {
    /// Where it listens.
    pub bind: BindAddress,
    /// Its certificate, where it is given in files.
    pub tls: Option<Tls>,
    /// Where our own certificate is kept, where none is given.
    pub certificates: CertificatesConfig,
}

/// The registry that images are kept in.
#[derive(Debug)]
pub struct CacheConfig {
    /// `HOST:PORT`.
    pub endpoint: String,
    /// Whether it fetches itself what it is asked for.
    pub fills_itself: bool,
    /// The Secret with its token, where it needs one.
    pub token_secret: Option<String>,
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
const CONCURRENT: &str = "max-concurrent-cached-image-reconciles";
const WEBHOOK: &str = "webhook-bind-address";
const KEYS: [&str; 13] = [
    LEADER_ELECT,
    METRICS,
    HEALTH,
    EXPIRY,
    VERIFY,
    ARCH,
    ENDPOINT,
    KIND,
    TOKEN,
    CONCURRENT,
    WEBHOOK,
    tls::CERTIFICATE,
    tls::KEY,
];

/// The cache's name where nobody says another.
const DEFAULT_ENDPOINT: &str = "kube-image-keeper-registry:5000";

/// The cache has something else to do, too.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

const DAY: u32 = 24 * 60 * 60;

impl RawController {
    /// The valid configuration.
    ///
    /// # Errors
    /// Everything that is wrong, together.
    pub fn validate(self) -> Result<ControllerConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 5] =
            [&KEYS, &RawCertificates::KEYS, &RawRewriting::KEYS, &RawOrigins::KEYS, &RawLog::KEYS];
        let file = ConfigFile::named(self.config.as_deref(), &groups, &mut problems);
        let config = self.over(&file).read(&file, &mut problems);
        problems.into_result(config)
    }

    /// What was given here, and for the rest what the file says.
    fn over(self, file: &ConfigFile) -> Self {
        Self {
            leader_elect: file.one(LEADER_ELECT, self.leader_elect),
            metrics_bind_address: file.one(METRICS, self.metrics_bind_address),
            health_probe_bind_address: file.one(HEALTH, self.health_probe_bind_address),
            expiry_delay: file.one(EXPIRY, self.expiry_delay),
            verify_interval: file.one(VERIFY, self.verify_interval),
            arch: file.list(ARCH, self.arch),
            registry_endpoint: file.one(ENDPOINT, self.registry_endpoint),
            registry_kind: file.one(KIND, self.registry_kind),
            registry_token_secret: file.one(TOKEN, self.registry_token_secret),
            max_concurrent_cached_image_reconciles: file
                .one(CONCURRENT, self.max_concurrent_cached_image_reconciles),
            webhook_bind_address: file.one(WEBHOOK, self.webhook_bind_address),
            tls: self.tls.over(file),
            certificates: self.certificates,
            rewriting: self.rewriting.over(file),
            origins: self.origins.over(file),
            log: self.log.over(file),
            config: self.config,
        }
    }

    /// `None` only where a problem was added.
    fn read(self, file: &ConfigFile, problems: &mut Problems) -> Option<ControllerConfig> {
        let leader_elect = switch(LEADER_ELECT, self.leader_elect.as_deref(), false, problems);
        let metrics = address(METRICS, self.metrics_bind_address.as_deref(), "0", problems);
        let health = address(HEALTH, self.health_probe_bind_address.as_deref(), ":8081", problems);
        let bind = address(WEBHOOK, self.webhook_bind_address.as_deref(), ":9443", problems);
        let (tls, certificates) = (self.tls.read(problems), self.certificates.read(file));
        let rewriting = self.rewriting.read(problems);
        let platforms = match self.arch.as_slice() {
            [] => Some(Platforms::all()),
            texts => problems.check(ARCH, Platforms::parse(texts.iter().map(String::as_str))),
        };
        let mut options = cached_image::Options::default();
        let days: u32 = parsed(EXPIRY, self.expiry_delay.as_deref(), 30, "a number of days", problems);
        options.expiry_delay = Duration::from_secs(u64::from(days) * u64::from(DAY));
        let interval = duration(VERIFY, self.verify_interval.as_deref(), options.verify_interval, problems);
        if interval < SHORTEST_INTERVAL {
            problems.add(VERIFY, format_args!("it is less than {SHORTEST_INTERVAL:?}"));
        }
        options.verify_interval = interval;
        let concurrent = self.max_concurrent_cached_image_reconciles;
        if let Some(most) = NonZeroUsize::new(3) {
            let most = parsed(CONCURRENT, concurrent.as_deref(), most, "a number from 1", problems);
            options.max_concurrent_copies = most.get();
        }
        let endpoint = self.registry_endpoint.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        problems.check(ENDPOINT, HostPort::from_str(&endpoint));
        let fills_itself = match self.registry_kind.as_deref() {
            None | Some("kuik") => true,
            Some("oci") => false,
            Some(other) => {
                problems.add(KIND, format_args!("{other:?} is neither kuik nor oci"));
                true
            }
        };
        let token_secret = self.registry_token_secret.unwrap_or_else(|| rbac::TOKEN_SECRET.to_owned());
        let cache = CacheConfig {
            endpoint,
            fills_itself,
            token_secret: Some(token_secret).filter(|name| !name.is_empty()),
        };
        let origins = self.origins.read(problems);
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
        assert_eq!(config.cache.endpoint, DEFAULT_ENDPOINT);
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
            registry_endpoint: text("http://cache"),
            registry_kind: text("other"),
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
                     registryEndpoint: cache:5000\nregistryKind: oci\nregistryTokenSecret: ''\n\
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
        assert!(config.webhook.is_none());
        let ignored: Vec<_> = config.rewriting.ignored.iter().map(String::as_str).collect();
        assert_eq!(ignored, ["kube-system", "kuik", "x"]);
    }
}
