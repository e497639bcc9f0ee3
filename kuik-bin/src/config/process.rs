//! Settings of every serving process: listen addresses, shutdown, logs and traces.

use std::{path::PathBuf, str::FromStr, time::Duration};

use kuik_proxy::serve::{BindAddress, Tls};

use super::{
    ConfigFile, Problems,
    tls::{self, RawTls},
    traces::{self, TracesConfig},
    value::duration,
};

/// Help of `--bind-address`, with the default of a program.
macro_rules! bind_address_help {
    ($default:literal) => {
        concat!(
            "Listen address, HOST:PORT; `localhost` means both loopback addresses, no host means every address; repeatable \
             [default: ",
            $default,
            "]"
        )
    };
}
pub(crate) use bind_address_help;

/// Unvalidated settings of a serving process.
#[derive(Debug, Default, clap::Args)]
pub struct RawProcess {
    // Programs set the help, with their default.
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
    /// Time limit for running requests to finish after SIGTERM [default: 5m]
    #[arg(long, env = "KUIK_SHUTDOWN_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    pub(super) shutdown_timeout: Option<String>,
    #[command(flatten)]
    pub(super) log: RawLog,
    /// OpenTelemetry collector to send traces to, by OTLP over HTTP, such as http://localhost:4318; the standard variables
    /// OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME are supported too [default: none]
    #[arg(long, env = "KUIK_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    pub(super) otlp_endpoint: Option<String>,
    /// YAML configuration file: the same settings, in camel case; flags and environment variables take precedence
    #[arg(long, env = "KUIK_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// Unvalidated log settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawLog {
    /// Log level: error, warn, info, debug, or directives such as info,kuik_proxy=debug [default: info]
    #[arg(long, env = "KUIK_LOG", hide_env_values = true, value_name = "LEVEL")]
    pub(super) log: Option<String>,
    /// Log format: text or json [default: text]
    #[arg(long, env = "KUIK_LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
}

/// Validated settings of a serving process.
#[derive(Debug)]
pub struct ProcessConfig {
    /// Listen addresses.
    pub bind: Vec<BindAddress>,
    /// TLS, if enabled.
    pub tls: Option<Tls>,
    /// Time limit for running requests to finish.
    pub shutdown_timeout: Duration,
    /// Log filter and format.
    pub log: LogConfig,
    /// Trace export, if enabled.
    pub traces: Option<TracesConfig>,
}

/// Log filter and format.
#[derive(Debug)]
pub struct LogConfig {
    /// Selects the events to log.
    pub filter: tracing_subscriber::EnvFilter,
    /// Whether to log JSON, one object per line.
    pub json: bool,
}

const BIND_ADDRESS: &str = "bind-address";
const SHUTDOWN: &str = "shutdown-timeout";
const LOG: &str = "log";
const LOG_FORMAT: &str = "log-format";

impl RawProcess {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 7] =
        [BIND_ADDRESS, tls::CERTIFICATE, tls::KEY, SHUTDOWN, LOG, LOG_FORMAT, traces::KEY];

    /// Reads the configuration file, which may contain the settings of all `groups`.
    pub(super) fn file(&self, groups: &[&[&str]], problems: &mut Problems) -> ConfigFile {
        ConfigFile::named(self.config.as_deref(), groups, problems)
    }

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            bind_address: file.list(BIND_ADDRESS, self.bind_address),
            tls: self.tls.merge_file(file),
            shutdown_timeout: file.one(SHUTDOWN, self.shutdown_timeout),
            log: self.log.merge_file(file),
            otlp_endpoint: file.one(traces::KEY, self.otlp_endpoint),
            config: self.config,
        }
    }

    /// Returns `None` only if a problem was added. `default` is the default listen address.
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
    /// Keys of these settings in the configuration file.
    #[cfg(feature = "kubernetes")]
    pub(super) const KEYS: [&str; 2] = [LOG, LOG_FORMAT];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self { log: file.one(LOG, self.log), log_format: file.one(LOG_FORMAT, self.log_format) }
    }

    /// Returns `None` only if a problem was added.
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
