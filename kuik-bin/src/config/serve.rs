//! The configuration of `kuik serve`: its flags, and what they mean once they are valid.

use std::{fs, path::PathBuf, str::FromStr, time::Duration};

use kuik_core::{
    credentials::DockerConfig,
    reference::PortForms,
    registry::{CertificateAuthorities, ProxyConfig, Upstreams},
};
use kuik_proxy::{pull_through::Revalidate, server::BindAddress};

use super::{ConfigFile, InvalidConfig, Problems};

/// What `kuik serve` is told, before anybody has looked at it.
///
/// Every value is a text: clap would stop at the first that is wrong, and we report all.
#[derive(Debug, Default, clap::Args)]
pub struct RawServe {
    /// Where to listen: HOST:PORT. `localhost` is both loopback addresses, no host is every address. May be given
    /// several times [default: localhost:7439]
    #[arg(
        long,
        env = "KUIK_BIND_ADDRESS",
        hide_env_values = true,
        value_name = "ADDR",
        value_delimiter = ','
    )]
    bind_address: Vec<String>,
    /// Where the cache is kept: a directory, made where it is missing, in the layout of Docker's registry. Required
    #[arg(long, env = "KUIK_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// A registry that is contacted over plain http. It may be at any address
    #[arg(
        long,
        env = "KUIK_INSECURE_REGISTRIES",
        hide_env_values = true,
        value_name = "HOST[:PORT]",
        value_delimiter = ','
    )]
    insecure_registries: Vec<String>,
    /// Fetch the images of a registry from this URL: `docker.io=https://mirror.example`
    #[arg(
        long,
        env = "KUIK_UPSTREAM",
        hide_env_values = true,
        value_name = "REGISTRY=URL",
        value_delimiter = ','
    )]
    upstream: Vec<String>,
    /// A PEM file of certificate authorities to trust beside the system's
    #[arg(
        long,
        env = "KUIK_ROOT_CERTIFICATE_AUTHORITIES",
        hide_env_values = true,
        value_name = "FILE",
        value_delimiter = ','
    )]
    root_certificate_authorities: Vec<String>,
    /// A docker config file with credentials for registries, such as ~/.docker/config.json
    #[arg(long, env = "KUIK_DOCKER_CONFIG", hide_env_values = true, value_name = "FILE")]
    docker_config: Option<String>,
    /// After how long a cached tag is checked against its registry: 90s, 5m, 1h30m, or never [default: 1m]
    #[arg(long, env = "KUIK_REVALIDATE_AFTER", hide_env_values = true, value_name = "DURATION")]
    revalidate_after: Option<String>,
    /// Read `host-5000` in image paths as host:5000 too, as earlier versions wrote it: true or false [default: false]
    #[arg(long, env = "KUIK_LEGACY_PORTS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    legacy_ports: Option<String>,
    /// How long pulls that are running may take to finish after SIGTERM [default: 5m]
    #[arg(long, env = "KUIK_SHUTDOWN_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    shutdown_timeout: Option<String>,
    /// What to log: error, warn, info, debug, or directives such as info,kuik_proxy=debug [default: info]
    #[arg(long, env = "KUIK_LOG", hide_env_values = true, value_name = "LEVEL")]
    log: Option<String>,
    /// How to log: text or json [default: text]
    #[arg(long, env = "KUIK_LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// A YAML file with any of these settings, their names in camel case; flags and environment win over it
    #[arg(long, env = "KUIK_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A valid configuration of `kuik serve`.
#[derive(Debug)]
pub struct ServeConfig {
    /// Where to listen.
    pub bind: Vec<BindAddress>,
    /// Where the cache is kept.
    pub data_dir: PathBuf,
    /// Where registries are.
    pub upstreams: Upstreams,
    /// Certificate authorities beside the system's.
    pub roots: Vec<CertificateAuthorities>,
    /// Credentials for registries.
    pub credentials: DockerConfig,
    /// Proxies between here and the registries.
    pub proxy: ProxyConfig,
    /// When tags are checked.
    pub revalidate: Revalidate,
    /// Which spellings of ports are read.
    pub ports: PortForms,
    /// How long running pulls may take to finish.
    pub shutdown_timeout: Duration,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// What is logged, and how.
#[derive(Debug)]
pub struct LogConfig {
    /// Which events.
    pub filter: tracing_subscriber::EnvFilter,
    /// Whether as JSON, one object a line.
    pub json: bool,
}

const BIND_ADDRESS: &str = "bind-address";
const DATA_DIR: &str = "data-dir";
const INSECURE: &str = "insecure-registries";
const UPSTREAM: &str = "upstream";
const ROOTS: &str = "root-certificate-authorities";
const DOCKER_CONFIG: &str = "docker-config";
const REVALIDATE: &str = "revalidate-after";
const LEGACY_PORTS: &str = "legacy-ports";
const SHUTDOWN: &str = "shutdown-timeout";
const LOG: &str = "log";
const LOG_FORMAT: &str = "log-format";
const KEYS: &[&str] = &[
    BIND_ADDRESS,
    DATA_DIR,
    INSECURE,
    UPSTREAM,
    ROOTS,
    DOCKER_CONFIG,
    REVALIDATE,
    LEGACY_PORTS,
    SHUTDOWN,
    LOG,
    LOG_FORMAT,
];

impl RawServe {
    /// The valid configuration.
    ///
    /// # Errors
    /// Everything that is wrong, together.
    pub fn validate(self) -> Result<ServeConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let file = match &self.config {
            Some(path) => {
                let read = ConfigFile::read(path, KEYS, &mut problems);
                problems.check("config", read).unwrap_or_default()
            }
            None => ConfigFile::default(),
        };
        let config = self.over(&file).read(&mut problems);
        problems.into_result(config)
    }

    /// What was given here, and for the rest what the file says.
    fn over(self, file: &ConfigFile) -> Self {
        let list = |key: &str, given: Vec<String>| match given.as_slice() {
            [] => file.get(key).to_vec(),
            _ => given,
        };
        let one = |key: &str, given: Option<String>| given.or_else(|| file.get(key).last().cloned());
        Self {
            bind_address: list(BIND_ADDRESS, self.bind_address),
            data_dir: one(DATA_DIR, self.data_dir),
            insecure_registries: list(INSECURE, self.insecure_registries),
            upstream: list(UPSTREAM, self.upstream),
            root_certificate_authorities: list(ROOTS, self.root_certificate_authorities),
            docker_config: one(DOCKER_CONFIG, self.docker_config),
            revalidate_after: one(REVALIDATE, self.revalidate_after),
            legacy_ports: one(LEGACY_PORTS, self.legacy_ports),
            shutdown_timeout: one(SHUTDOWN, self.shutdown_timeout),
            log: one(LOG, self.log),
            log_format: one(LOG_FORMAT, self.log_format),
            config: self.config,
        }
    }

    /// `None` only where a problem was added.
    fn read(self, problems: &mut Problems) -> Option<ServeConfig> {
        let bind = bind_addresses(&self.bind_address, problems);
        if self.data_dir.as_deref().is_none_or(str::is_empty) {
            problems.add(DATA_DIR, "it is not set: say where the cache is to be kept");
        }
        let upstreams = upstreams(&self.insecure_registries, &self.upstream, problems);
        let roots = roots(&self.root_certificate_authorities, problems);
        let credentials = credentials(self.docker_config.as_deref(), problems);
        let revalidate = match self.revalidate_after.as_deref() {
            Some("never") => Revalidate::Never,
            text => Revalidate::After(duration(REVALIDATE, text, Duration::from_secs(60), problems)),
        };
        let legacy = parsed(LEGACY_PORTS, self.legacy_ports.as_deref(), false, "true or false", problems);
        let shutdown_timeout =
            duration(SHUTDOWN, self.shutdown_timeout.as_deref(), Duration::from_secs(300), problems);
        let log = log(self.log.as_deref(), self.log_format.as_deref(), problems)?;
        Some(ServeConfig {
            bind,
            data_dir: self.data_dir?.into(),
            upstreams,
            roots,
            credentials,
            proxy: ProxyConfig::from_env(),
            revalidate,
            ports: if legacy { PortForms::OrDash } else { PortForms::default() },
            shutdown_timeout,
            log,
        })
    }
}

fn bind_addresses(texts: &[String], problems: &mut Problems) -> Vec<BindAddress> {
    if texts.is_empty() {
        return vec![BindAddress::localhost(7439)];
    }
    texts.iter().filter_map(|text| problems.check(BIND_ADDRESS, BindAddress::from_str(text))).collect()
}

fn upstreams(insecure: &[String], overrides: &[String], problems: &mut Problems) -> Upstreams {
    let mut upstreams = Upstreams::default();
    for host in insecure {
        upstreams = problems.check(INSECURE, upstreams.clone().insecure(host)).unwrap_or(upstreams);
    }
    for text in overrides {
        upstreams = problems.check(UPSTREAM, upstreams.clone().overriding(text)).unwrap_or(upstreams);
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

fn credentials(file: Option<&str>, problems: &mut Problems) -> DockerConfig {
    let read = |file: &str| {
        let content = problems.check(DOCKER_CONFIG, read_file(file))?;
        problems.check(DOCKER_CONFIG, DockerConfig::parse(file, &content))
    };
    file.and_then(read).unwrap_or_default()
}

/// A file that a setting names cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {file}")]
struct Unreadable {
    file: String,
    source: std::io::Error,
}

fn read_file(file: &str) -> Result<Vec<u8>, Unreadable> {
    fs::read(file).map_err(|source| Unreadable { file: file.to_owned(), source })
}

/// A duration as Go and Kubernetes write it: `90s`, `5m`, `1h30m`.
fn duration(key: &str, text: Option<&str>, default: Duration, problems: &mut Problems) -> Duration {
    let Some(text) = text else { return default };
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.unwrap_or_else(|| {
        problems.add(key, format_args!("{text:?} is not a duration such as 90s, 5m or 1h30m"));
        default
    })
}

fn parsed<T: FromStr>(
    key: &str,
    text: Option<&str>,
    default: T,
    expected: &str,
    problems: &mut Problems,
) -> T {
    let Some(text) = text else { return default };
    text.parse().unwrap_or_else(|_| {
        problems.add(key, format_args!("{text:?} is not {expected}"));
        default
    })
}

fn log(filter: Option<&str>, format: Option<&str>, problems: &mut Problems) -> Option<LogConfig> {
    let json = match format {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            problems.add(LOG_FORMAT, format_args!("{other:?} is neither text nor json"));
            false
        }
    };
    let filter = filter.unwrap_or("info").parse();
    Some(LogConfig { filter: problems.check(LOG, filter)?, json })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_need_a_directory_only() {
        let raw = RawServe { data_dir: Some("cache".to_owned()), ..RawServe::default() };
        let config = raw.validate().unwrap();
        assert_eq!(config.bind, [BindAddress::localhost(7439)]);
        assert_eq!(config.revalidate, Revalidate::After(Duration::from_secs(60)));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = |text: &str| Some(text.to_owned());
        let raw = RawServe {
            bind_address: vec!["7439".to_owned()],
            data_dir: None,
            insecure_registries: vec!["http://registry".to_owned()],
            upstream: vec!["docker.io".to_owned()],
            root_certificate_authorities: vec!["/does/not/exist.pem".to_owned()],
            docker_config: text("/does/not/exist.json"),
            revalidate_after: text("soon"),
            legacy_ports: text("maybe"),
            shutdown_timeout: text("-5m"),
            log: text("kuik=loud"),
            log_format: text("xml"),
            config: Some("/does/not/exist.yaml".into()),
        };
        let report = raw.validate().unwrap_err().to_string();
        for key in KEYS.iter().chain(&["config"]) {
            assert!(report.contains(&format!("\n  {key}: ")), "{key} is missing:\n{report}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kuik.yaml");
        fs::write(&path, "dataDir: from-file\nrevalidateAfter: never\nshutdownTimeout: 1h30m\n").unwrap();
        let raw =
            RawServe { data_dir: Some("from-flag".to_owned()), config: Some(path), ..RawServe::default() };
        let config = raw.validate().unwrap();
        assert_eq!(config.data_dir, PathBuf::from("from-flag"));
        assert_eq!(config.revalidate, Revalidate::Never);
        assert_eq!(config.shutdown_timeout, Duration::from_secs(5400));
    }
}
