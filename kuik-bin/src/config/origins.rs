//! The settings of everything that fetches from other registries: where they are, whom to trust, what to show them,
//! and when to ask them again.

use std::time::Duration;

use kuik_core::{
    credentials::Providers,
    reference::PortForms,
    registry::{CertificateAuthorities, ProxyConfig, Upstreams},
};
use kuik_proxy::pull_through::Revalidate;
use serde_json::Value;

use super::{
    ConfigFile, Problems,
    credentials::{self, RawCredentials},
    upstreams,
    value::{duration, read_file, switch},
};

/// What is said about other registries, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawOrigins {
    /// A registry that is contacted over plain http. It may be at any address
    #[arg(
        long,
        env = "KUIK_INSECURE_REGISTRIES",
        hide_env_values = true,
        value_name = "HOST[:PORT]",
        value_delimiter = ','
    )]
    pub(super) insecure_registries: Vec<String>,
    /// Fetch the images of a registry, or those whose name begins like that, from this URL alone:
    /// `docker.io=https://mirror.example`
    #[arg(
        long,
        env = "KUIK_UPSTREAM",
        hide_env_values = true,
        value_name = "PREFIX=URL",
        value_delimiter = ','
    )]
    pub(super) upstream: Vec<String>,
    /// Ask this URL before the registry itself, always: `docker.io=https://mirror.example`. In the order given
    #[arg(
        long,
        env = "KUIK_MIRROR",
        hide_env_values = true,
        value_name = "PREFIX=URL",
        value_delimiter = ','
    )]
    pub(super) mirror: Vec<String>,
    /// Ask this URL after the registry itself, where that fails: `docker.io=https://replica.example`. In the order given
    #[arg(
        long,
        env = "KUIK_FALLBACK",
        hide_env_values = true,
        value_name = "PREFIX=URL",
        value_delimiter = ','
    )]
    pub(super) fallback: Vec<String>,
    /// What the file says about upstreams; no flag has this form
    #[arg(skip)]
    pub(super) upstreams: Option<Value>,
    /// A PEM file of certificate authorities to trust beside the system's
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
    /// Open private images with the pull secrets that the Repositories of a cluster name, before all other credentials:
    /// the cluster that this runs in, or that of KUBECONFIG. true or false [default: false]
    #[arg(long, env = "KUIK_KUBERNETES", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) kubernetes: Option<String>,
    /// After how long a cached tag is checked against its registry: 90s, 5m, 1h30m, or never [default: 1m]
    #[arg(long, env = "KUIK_REVALIDATE_AFTER", hide_env_values = true, value_name = "DURATION")]
    pub(super) revalidate_after: Option<String>,
    /// Read `host-5000` in image paths as host:5000 too, as earlier versions wrote it: true or false [default: false]
    #[arg(long, env = "KUIK_LEGACY_PORTS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) legacy_ports: Option<String>,
}

/// Other registries, as far as they are configured.
#[derive(Debug)]
pub struct OriginsConfig {
    /// Where registries are.
    pub upstreams: Upstreams,
    /// Certificate authorities beside the system's.
    pub roots: Vec<CertificateAuthorities>,
    /// The files that these are from.
    pub root_files: Vec<String>,
    /// Credentials for registries.
    pub credentials: Providers,
    /// Whether the pull secrets of a cluster are tried before them.
    pub kubernetes: bool,
    /// Proxies between here and the registries.
    pub proxy: ProxyConfig,
    /// When tags are checked.
    pub revalidate: Revalidate,
    /// Which spellings of ports are read.
    pub ports: PortForms,
}

const INSECURE: &str = "insecure-registries";
const ROOTS: &str = "root-certificate-authorities";
const KUBERNETES: &str = "kubernetes";
const REVALIDATE: &str = "revalidate-after";
const LEGACY_PORTS: &str = "legacy-ports";

impl RawOrigins {
    /// The settings that a file can have.
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

    /// What was given here, and for the rest what the file says.
    pub(super) fn over(self, file: &ConfigFile) -> Self {
        Self {
            insecure_registries: file.list(INSECURE, self.insecure_registries),
            upstream: file.list(upstreams::UPSTREAM, self.upstream),
            mirror: file.list(upstreams::MIRROR, self.mirror),
            fallback: file.list(upstreams::FALLBACK, self.fallback),
            upstreams: self.upstreams.or_else(|| file.form(upstreams::KEY).cloned()),
            root_certificate_authorities: file.list(ROOTS, self.root_certificate_authorities),
            credentials: self.credentials.over(file),
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
            text => Revalidate::After(duration(REVALIDATE, text, Duration::from_secs(60), problems)),
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
