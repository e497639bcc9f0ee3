//! The configuration of `kuik serve`: its flags, and what they mean once they are valid.

use std::path::PathBuf;

use kuik_proxy::server::BindAddress;

use super::{
    InvalidConfig, Problems,
    origins::{OriginsConfig, RawOrigins},
    process::{ProcessConfig, RawProcess},
};

/// What `kuik serve` is told, before anybody has looked at it.
///
/// Every value is a text: clap would stop at the first that is wrong, and we report all.
#[derive(Debug, Default, clap::Args)]
pub struct RawServe {
    #[command(flatten)]
    process: RawProcess,
    /// Where the cache is kept: a directory, made where it is missing, in the layout of Docker's registry. Required
    #[arg(long, env = "KUIK_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<String>,
    #[command(flatten)]
    origins: RawOrigins,
}

/// A valid configuration of `kuik serve`.
#[derive(Debug)]
pub struct ServeConfig {
    /// Where to listen (localhost:7439 unless said otherwise), and how to stop.
    pub process: ProcessConfig,
    /// Where the cache is kept.
    pub data_dir: PathBuf,
    /// Other registries.
    pub origins: OriginsConfig,
}

const DATA_DIR: &str = "data-dir";

impl RawServe {
    /// The valid configuration.
    ///
    /// # Errors
    /// Everything that is wrong, together.
    pub fn validate(self) -> Result<ServeConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 3] = [&RawProcess::KEYS, &[DATA_DIR], &RawOrigins::KEYS];
        let file = self.process.file(&groups, &mut problems);
        let data_dir = file.one(DATA_DIR, self.data_dir).filter(|dir| !dir.is_empty());
        if data_dir.is_none() {
            problems.add(DATA_DIR, "it is not set: say where the cache is to be kept");
        }
        let origins = self.origins.over(&file).read(&mut problems);
        let process = self.process.over(&file).read(BindAddress::localhost(7439), &mut problems);
        let config = process.zip(data_dir);
        let config =
            config.map(|(process, data_dir)| ServeConfig { process, data_dir: data_dir.into(), origins });
        problems.into_result(config)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use kuik_proxy::pull_through::Revalidate;

    use super::*;
    use crate::config::{credentials::RawCredentials, process::RawLog, tls::RawTls};

    #[test]
    fn the_defaults_need_a_directory_only() {
        let raw = RawServe { data_dir: Some("cache".to_owned()), ..RawServe::default() };
        let config = raw.validate().unwrap();
        assert_eq!(config.process.bind, [BindAddress::localhost(7439)]);
        assert_eq!(config.origins.revalidate, Revalidate::After(Duration::from_secs(60)));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = |text: &str| Some(text.to_owned());
        let raw = RawServe {
            process: RawProcess {
                tls: RawTls::default(),
                bind_address: vec!["7439".to_owned()],
                shutdown_timeout: text("-5m"),
                log: RawLog { log: text("kuik=loud"), log_format: text("xml") },
                otlp_endpoint: text("collector"),
                config: Some("/does/not/exist.yaml".into()),
            },
            data_dir: None,
            origins: RawOrigins {
                insecure_registries: vec!["http://registry".to_owned()],
                upstream: vec!["docker.io".to_owned()],
                mirror: vec!["docker.io".to_owned()],
                fallback: vec!["docker.io".to_owned()],
                upstreams: Some("docker.io".into()),
                root_certificate_authorities: vec!["/does/not/exist.pem".to_owned()],
                credentials: RawCredentials {
                    docker_config: text("/does/not/exist.json"),
                    ambient_credentials: vec!["heroku".to_owned()],
                    ..RawCredentials::default()
                },
                kubernetes: text("perhaps"),
                revalidate_after: text("soon"),
                legacy_ports: text("maybe"),
            },
        };
        let report = raw.validate().unwrap_err().to_string();
        // Those of TLS and of plugins are about one another: they have tests of their own.
        let alone = |key: &&&str| !key.starts_with("tls-") && !key.starts_with("image-credential-");
        let groups = RawProcess::KEYS.iter().chain(&RawOrigins::KEYS).filter(alone);
        for key in groups.chain(&[DATA_DIR, "config"]) {
            assert!(report.contains(&format!("\n  {key}: ")), "{key} is missing:\n{report}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kuik.yaml");
        fs::write(&path, "dataDir: from-file\nrevalidateAfter: never\nshutdownTimeout: 1h30m\n").unwrap();
        let raw = RawServe {
            process: RawProcess { config: Some(path), ..RawProcess::default() },
            data_dir: Some("from-flag".to_owned()),
            ..RawServe::default()
        };
        let config = raw.validate().unwrap();
        assert_eq!(config.data_dir, PathBuf::from("from-flag"));
        assert_eq!(config.origins.revalidate, Revalidate::Never);
        assert_eq!(config.process.shutdown_timeout, Duration::from_secs(5400));
    }
}
