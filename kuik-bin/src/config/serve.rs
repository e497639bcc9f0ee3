//! Configuration of `kuik serve`: its flags and their validated form.

use std::path::PathBuf;

use kuik_proxy::{serve::BindAddress, stack::MaintenanceOptions};

use super::{
    InvalidConfig, Problems,
    maintenance::RawMaintenance,
    origins::{OriginsConfig, RawOrigins},
    process::{ProcessConfig, RawProcess},
};

/// Unvalidated configuration of `kuik serve`.
///
/// Every value is a string: clap would stop at the first mistake, and validation reports all of them.
#[derive(Debug, Default, clap::Args)]
pub struct RawServe {
    #[command(flatten)]
    process: RawProcess,
    /// Cache directory, created if missing, in the layout of Docker's registry [required]
    #[arg(long, env = "KUIK_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<String>,
    #[command(flatten)]
    maintenance: RawMaintenance,
    #[command(flatten)]
    origins: RawOrigins,
}

/// A valid configuration of `kuik serve`.
#[derive(Debug)]
pub struct ServeConfig {
    /// Listen address (`localhost:7439` by default), shutdown and logs.
    pub process: ProcessConfig,
    /// Cache directory.
    pub data_dir: PathBuf,
    /// Size limit, scrubbing and garbage collection.
    pub maintenance: MaintenanceOptions,
    /// Upstream registries.
    pub origins: OriginsConfig,
}

const DATA_DIR: &str = "data-dir";

impl RawServe {
    /// Validates the configuration.
    ///
    /// # Errors
    /// Returns an error that lists every invalid setting.
    pub fn validate(self) -> Result<ServeConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 3] = [&RawProcess::KEYS, &[DATA_DIR], &RawOrigins::KEYS];
        let groups = [&groups[..], &RawMaintenance::GROUPS].concat();
        let file = self.process.file(&groups, &mut problems);
        let data_dir = file.one(DATA_DIR, self.data_dir).filter(|dir| !dir.is_empty());
        if data_dir.is_none() {
            problems.add(DATA_DIR, "required: set the cache directory");
        }
        let maintenance = self.maintenance.merge_file(&file).read(true, &mut problems);
        let origins = self.origins.merge_file(&file).read(&mut problems);
        let process = self.process.merge_file(&file).read(BindAddress::localhost(7439), &mut problems);
        let config = process.zip(data_dir);
        let config = config.map(|(process, data_dir)| ServeConfig {
            process,
            data_dir: data_dir.into(),
            maintenance,
            origins,
        });
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
    fn serve_requires_only_a_data_directory() {
        let raw = RawServe { data_dir: Some("cache".to_owned()), ..RawServe::default() };
        let config = raw.validate().unwrap();
        assert_eq!(config.process.bind, [BindAddress::localhost(7439)]);
        assert_eq!(config.origins.revalidate, Revalidate::After(Duration::ZERO));
        assert!(config.maintenance.max_bytes.is_none() && config.maintenance.gc.interval.is_some());
    }

    #[test]
    fn serve_reports_all_mistakes_together() {
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
            maintenance: RawMaintenance::invalid(),
            origins: RawOrigins {
                insecure_registries: vec!["ftp://registry".to_owned()],
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
        // The settings of TLS and of plugins depend on each other, and have separate tests.
        let alone = |key: &&&str| !key.starts_with("tls-") && !key.starts_with("image-credential-");
        let maintenance = RawMaintenance::GROUPS.into_iter().flatten();
        let groups = RawProcess::KEYS.iter().chain(&RawOrigins::KEYS).filter(alone).chain(maintenance);
        for key in groups.chain(&[DATA_DIR, "config"]) {
            assert!(report.contains(&format!("\n  {key}: ")), "{key} is missing:\n{report}");
        }
    }

    #[test]
    fn flags_take_precedence_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kuik.yaml");
        fs::write(
            &path,
            "dataDir: from-file\nrevalidateAfter: never\nshutdownTimeout: 1h30m\nmaxSize: 10Gi\n",
        )
        .unwrap();
        let raw = RawServe {
            process: RawProcess { config: Some(path), ..RawProcess::default() },
            data_dir: Some("from-flag".to_owned()),
            ..RawServe::default()
        };
        let config = raw.validate().unwrap();
        assert_eq!(config.data_dir, PathBuf::from("from-flag"));
        assert_eq!(config.origins.revalidate, Revalidate::Never);
        assert_eq!(config.maintenance.max_bytes, Some(10 << 30));
        assert_eq!(config.process.shutdown_timeout, Duration::from_secs(5400));
    }
}
