//! The settings of every process that serves: where, how it stops, and what it logs.

use std::{path::PathBuf, str::FromStr, time::Duration};

use kuik_proxy::server::{BindAddress, Tls};

use super::{
    ConfigFile, Problems,
    tls::{self, RawTls},
    traces::{self, TracesConfig},
    value::duration,
};

/// What a serving process is told, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawProcess {
    /// Where to listen: HOST:PORT. `localhost` is both loopback addresses, no host is every address. May be given
    /// several times
    #[arg(
        long,
        env = "KUIK_BIND_ADDRESS",
        hide_env_values = true,
        value_name = "ADDR",
        value_delimiter = ','
    )]
    pub(super) bind_address: Vec<String>,
    #[command(flatten)]
    pub(super) tls: RawTls,
    /// How long requests that are running may take to finish after SIGTERM [default: 5m]
    #[arg(long, env = "KUIK_SHUTDOWN_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    pub(super) shutdown_timeout: Option<String>,
    #[command(flatten)]
    pub(super) log: RawLog,
    /// Send traces to this OpenTelemetry collector, by OTLP over HTTP: http://localhost:4318. OpenTelemetry's own
    /// variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME) are read too [default: nowhere]
    #[arg(long, env = "KUIK_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    pub(super) otlp_endpoint: Option<String>,
    /// A YAML file with any of these settings, their names in camel case; flags and environment win over it
    #[arg(long, env = "KUIK_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// What a process is told of its log, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawLog {
    /// What to log: error, warn, info, debug, or directives such as info,kuik_proxy=debug [default: info]
    #[arg(long, env = "KUIK_LOG", hide_env_values = true, value_name = "LEVEL")]
    pub(super) log: Option<String>,
    /// How to log: text or json [default: text]
    #[arg(long, env = "KUIK_LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
}

/// How a process serves.
#[derive(Debug)]
pub struct ProcessConfig {
    /// Where to listen.
    pub bind: Vec<BindAddress>,
    /// TLS, where it is served.
    pub tls: Option<Tls>,
    /// How long running requests may take to finish.
    pub shutdown_timeout: Duration,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Where traces are sent, if anywhere.
    pub traces: Option<TracesConfig>,
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
const SHUTDOWN: &str = "shutdown-timeout";
const LOG: &str = "log";
const LOG_FORMAT: &str = "log-format";

impl RawProcess {
    /// The settings that a file can have.
    pub(super) const KEYS: [&str; 7] =
        [BIND_ADDRESS, tls::CERTIFICATE, tls::KEY, SHUTDOWN, LOG, LOG_FORMAT, traces::KEY];

    /// The file that is named, which may have the settings of all `groups`.
    pub(super) fn file(&self, groups: &[&[&str]], problems: &mut Problems) -> ConfigFile {
        ConfigFile::named(self.config.as_deref(), groups, problems)
    }

    /// What was given here, and for the rest what the file says.
    pub(super) fn over(self, file: &ConfigFile) -> Self {
        Self {
            bind_address: file.list(BIND_ADDRESS, self.bind_address),
            tls: self.tls.over(file),
            shutdown_timeout: file.one(SHUTDOWN, self.shutdown_timeout),
            log: self.log.over(file),
            otlp_endpoint: file.one(traces::KEY, self.otlp_endpoint),
            config: self.config,
        }
    }

    /// `None` only where a problem was added. `default` is where to listen when nobody says.
    pub(super) fn read(self, default: BindAddress, problems: &mut Problems) -> Option<ProcessConfig> {
        let bind = match self.bind_address.as_slice() {
            [] => vec![default],
            texts => texts
                .iter()
                .filter_map(|text| problems.check(BIND_ADDRESS, BindAddress::from_str(text)))
                .collect(),
        };
        let tls = self.tls.read(problems);
        let shutdown_timeout =
            duration(SHUTDOWN, self.shutdown_timeout.as_deref(), Duration::from_secs(300), problems);
        let traces = traces::read(self.otlp_endpoint.as_deref(), traces::Environment::read(), problems);
        let log = self.log.read(problems)?;
        Some(ProcessConfig { bind, tls, shutdown_timeout, log, traces })
    }
}

impl RawLog {
    /// The settings that a file can have.
    pub(super) const KEYS: [&str; 2] = [LOG, LOG_FORMAT];

    /// What was given here, and for the rest what the file says.
    pub(super) fn over(self, file: &ConfigFile) -> Self {
        Self { log: file.one(LOG, self.log), log_format: file.one(LOG_FORMAT, self.log_format) }
    }

    /// `None` only where a problem was added.
    pub(super) fn read(self, problems: &mut Problems) -> Option<LogConfig> {
        let json = match self.log_format.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => {
                problems.add(LOG_FORMAT, format_args!("{other:?} is neither text nor json"));
                false
            }
        };
        let filter = self.log.as_deref().unwrap_or("info").parse();
        Some(LogConfig { filter: problems.check(LOG, filter)?, json })
    }
}
