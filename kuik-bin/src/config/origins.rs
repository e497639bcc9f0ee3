//! Upstream registry settings: endpoints, certificate authorities, credentials, and revalidation of tags.

use std::time::Duration;

use kuik_core::{
    client::{CertificateAuthorities, ProxyConfig, Upstreams},
    credentials::Providers,
    reference::PortForms,
};
use kuik_proxy::pull_through::Revalidate;
use serde_json::Value;

use super::{
    ConfigFile, Problems,
    credentials::{self, RawCredentials},
    upstreams,
    value::{duration, read_file, switch},
};

/// Unvalidated upstream registry settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawOrigins {
    /// Insecure registry: `https://HOST[:PORT]` is contacted over TLS without verification of its certificate,
    /// `http://HOST[:PORT]` over plain HTTP, HOST[:PORT] over TLS without verification or, if it does not speak TLS, over
    /// plain HTTP; it may have a private or loopback address; repeatable
    #[arg(
        long,
        env = "KUIK_INSECURE_REGISTRIES",
        hide_env_values = true,
        value_name = "REGISTRY",
        value_delimiter = ','
    )]
    pub(super) insecure_registries: Vec<String>,
    /// Fetch images of a registry, or those whose name starts with PREFIX, from this URL instead, such as
    /// `docker.io=https://mirror.example`; repeatable
    #[arg(
        long,
        env = "KUIK_UPSTREAM",
        hide_env_values = true,
        value_name = "PREFIX=URL",
        value_delimiter = ','
    )]
    pub(super) upstream: Vec<String>,
    /// Mirror to try before the registry, in the order given, such as `docker.io=https://mirror.example`; repeatable
    #[arg(
        long,
        env = "KUIK_MIRROR",
        hide_env_values = true,
        value_name = "PREFIX=URL",
        value_delimiter = ','
    )]
    pub(super) mirror: Vec<String>,
    /// Fallback to try if the registry fails, in the order given, such as `docker.io=https://replica.example`; repeatable
    #[arg(
        long,
        env = "KUIK_FALLBACK",
        hide_env_values = true,
        value_name = "PREFIX=URL",
        value_delimiter = ','
    )]
    pub(super) fallback: Vec<String>,
    /// Value of the file's `upstreams` key, which has no flag
    #[arg(skip)]
    pub(super) upstreams: Option<Value>,
    /// PEM file of certificate authorities to trust in addition to the system's, reloaded when it changes; repeatable
    #[arg(
        long,
        env = "KUIK_ROOT_CERTIFICATE_AUTHORITIES",
        hide_env_values = true,
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub(super) root_certificate_authorities: Vec<String>,
    #[command(flatten)]
    pub(super) credentials: RawCredentials,
    /// Use the pull secrets that the Repositories of the cluster name, before all other credentials: the cluster of this
    /// pod, or of KUBECONFIG [default: false]
    #[arg(long, env = "KUIK_KUBERNETES", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) kubernetes: Option<String>,
    /// Age at which a cached tag without a CachedImage is checked against its registry when it is pulled, such as 90s or
    /// 1h30m; 0s is on each pull, never is only when the controllers refresh it [default: 0s]
    #[arg(long, env = "KUIK_REVALIDATE_AFTER", hide_env_values = true, value_name = "DURATION")]
    pub(super) revalidate_after: Option<String>,
    /// Also accept `host-5000` for host:5000 in image paths, as earlier versions wrote it [default: false]
    #[arg(long, env = "KUIK_LEGACY_PORTS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) legacy_ports: Option<String>,
}

/// Validated upstream registry settings.
#[derive(Debug)]
pub struct OriginsConfig {
    /// Endpoints of registries.
    pub upstreams: Upstreams,
    /// Certificate authorities in addition to the system's.
    pub roots: Vec<CertificateAuthorities>,
    /// Files of these certificate authorities.
    pub root_files: Vec<String>,
    /// Credentials for registries.
    pub credentials: Providers,
    /// Whether the pull secrets of a cluster are tried before them.
    pub kubernetes: bool,
    /// HTTP proxies to reach the registries through.
    pub proxy: ProxyConfig,
    /// Revalidation of tags.
    pub revalidate: Revalidate,
    /// Accepted spellings of ports.
    pub ports: PortForms,
}

const INSECURE: &str = "insecure-registries";
const ROOTS: &str = "root-certificate-authorities";
const KUBERNETES: &str = "kubernetes";
const REVALIDATE: &str = "revalidate-after";
const LEGACY_PORTS: &str = "legacy-ports";

impl RawOrigins {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 13] = [
        INSECURE,
        upstreams::UPSTREAM,
        upstreams::MIRROR,
        upstreams::FALLBACK,
        upstreams::KEY,
        ROOTS,
        credentials::DOCKER_CONFIG,
        credentials::PLUGINS,
        credentials::PLUGINS_DIR,
        credentials::AMBIENT,
        KUBERNETES,
        REVALIDATE,
        LEGACY_PORTS,
    ];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            insecure_registries: file.list(INSECURE, self.insecure_registries),
            upstream: file.list(upstreams::UPSTREAM, self.upstream),
            mirror: file.list(upstreams::MIRROR, self.mirror),
            fallback: file.list(upstreams::FALLBACK, self.fallback),
            upstreams: self.upstreams.or_else(|| file.form(upstreams::KEY).cloned()),
            root_certificate_authorities: file.list(ROOTS, self.root_certificate_authorities),
            credentials: self.credentials.merge_file(file),
            kubernetes: file.one(KUBERNETES, self.kubernetes),
            revalidate_after: file.one(REVALIDATE, self.revalidate_after),
            legacy_ports: file.one(LEGACY_PORTS, self.legacy_ports),
        }
    }

    pub(super) fn read(self, problems: &mut Problems) -> OriginsConfig {
        let rules = upstreams::Rules {
            moved: &self.upstream,
            mirrors: &self.mirror,
            fallbacks: &self.fallback,
            form: self.upstreams.as_ref(),
        };
        let upstreams = upstreams(&self.insecure_registries, rules, problems);
        let roots = roots(&self.root_certificate_authorities, problems);
        let proxy = ProxyConfig::from_env();
        let credentials = self.credentials.read(&roots, &proxy, problems);
        let revalidate = match self.revalidate_after.as_deref() {
            Some("never") => Revalidate::Never,
            text => Revalidate::After(duration(REVALIDATE, text, Duration::ZERO, problems)),
        };
        let legacy = switch(LEGACY_PORTS, self.legacy_ports.as_deref(), false, problems);
        OriginsConfig {
            upstreams,
            roots,
            root_files: self.root_certificate_authorities,
            credentials,
            kubernetes: switch(KUBERNETES, self.kubernetes.as_deref(), false, problems),
            proxy,
            revalidate,
            ports: if legacy { PortForms::OrDash } else { PortForms::default() },
        }
    }
}

fn upstreams(insecure: &[String], rules: upstreams::Rules<'_>, problems: &mut Problems) -> Upstreams {
    let mut upstreams = Upstreams::default();
    for host in insecure {
        upstreams = problems.check(INSECURE, upstreams.clone().insecure(host)).unwrap_or(upstreams);
    }
    for rule in rules.read(problems) {
        upstreams = problems.check(upstreams::KEY, upstreams.clone().with_rule(rule)).unwrap_or(upstreams);
    }
    upstreams
}

fn roots(files: &[String], problems: &mut Problems) -> Vec<CertificateAuthorities> {
    let read = |file: &String| {
        let pem = problems.check(ROOTS, read_file(file))?;
        problems.check(ROOTS, CertificateAuthorities::from_pem(file, &pem))
    };
    files.iter().filter_map(read).collect()
}

/// Returns insecure registries without their scheme.
pub(crate) fn insecure_hosts(insecure: &[String]) -> impl Iterator<Item = &str> {
    insecure.iter().map(|registry| {
        let host = registry.split_once("://").map_or(registry.as_str(), |(_, host)| host);
        host.trim_end_matches('/')
    })
}
