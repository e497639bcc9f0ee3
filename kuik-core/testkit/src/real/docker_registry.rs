//! Docker's registry, version 2.8 or 3, over a folder or a bucket.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    clients::run,
    error::{InstallSource, RealPartError},
    free_address,
    program::{Launch, Program, Ready},
    s3::Bucket,
};

/// Version of Docker's registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryVersion {
    /// 2.8, a Debian package.
    #[default]
    V2,
    /// 3, built from Go: for tests of `make built`.
    V3,
}

/// Options of Docker's registry.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// User and password for Basic authentication.
    pub basic: Option<(String, String)>,
    /// TLS certificate and key as PEM.
    pub tls: Option<(String, String)>,
    /// Storage folder; a temporary one if neither it nor a bucket is given.
    pub storage: Option<PathBuf>,
    /// Storage bucket with its prefix.
    pub bucket: Option<Bucket>,
    /// The version to run.
    pub version: RegistryVersion,
}

/// A running Docker registry.
#[derive(Debug)]
pub struct DockerRegistry {
    address: SocketAddr,
    program: Program,
    tls: bool,
}

impl DockerRegistry {
    /// Starts a registry, and waits until it responds.
    ///
    /// # Errors
    /// Returns an error if it is not installed, or does not start.
    pub async fn start(options: &RegistryOptions) -> Result<Self, RealPartError> {
        // Another process may take the free port before it is used.
        for _ in 0..3 {
            match Self::start_once(options).await {
                Err(error) if error.is_address_in_use() => {}
                started => return started,
            }
        }
        Self::start_once(options).await
    }

    async fn start_once(options: &RegistryOptions) -> Result<Self, RealPartError> {
        let address = free_address().await?;
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let storage = match (&options.bucket, &options.storage) {
            (Some(bucket), _) => in_bucket(bucket),
            (None, Some(folder)) => in_folder(folder),
            (None, None) => in_folder(&at("storage")),
        };
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage:\n{storage}  \
             delete: {{enabled: true}}\nhttp:\n  addr: \"{address}\"\n"
        );
        if let Some((certificate, key)) = &options.tls {
            std::fs::write(at("cert.pem"), certificate)?;
            std::fs::write(at("key.pem"), key)?;
            config += &format!("  tls: {{certificate: {:?}, key: {:?}}}\n", at("cert.pem"), at("key.pem"));
        }
        if let Some((username, password)) = &options.basic {
            let entry = run("htpasswd", "apache2-utils", ["-Bbn", username, password]).await?;
            std::fs::write(at("htpasswd"), entry)?;
            config += &format!("auth:\n  htpasswd: {{realm: testkit, path: {:?}}}\n", at("htpasswd"));
        }
        std::fs::write(at("config.yml"), config)?;
        let (name, install_source) = match options.version {
            RegistryVersion::V2 => ("docker-registry", InstallSource::Debian("docker-registry")),
            RegistryVersion::V3 => ("docker-registry-3", InstallSource::BuiltFromGo),
        };
        // By default, version 3 sends traces to a collector on this machine.
        let launch = Launch::new(name, install_source, Ready::Http(address))
            .arguments(["serve".into(), at("config.yml").into_os_string()])
            .environment("OTEL_TRACES_EXPORTER", "none");
        let program = Program::start(launch, folder).await?;
        Ok(Self { address, program, tls: options.tls.is_some() })
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// Stops the registry: further connections are refused.
    ///
    /// # Errors
    /// Returns an error if it cannot be stopped.
    pub async fn stop(&mut self) -> Result<(), RealPartError> {
        self.program.stop().await
    }

    /// Restarts it on the same port with the same content.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub async fn resume(&mut self) -> Result<(), RealPartError> {
        self.program.resume().await
    }
}

fn in_folder(folder: &Path) -> String {
    format!("  filesystem: {{rootdirectory: {folder:?}}}\n")
}

/// Redirects are disabled: clients of the registry need not reach the S3 server.
fn in_bucket(bucket: &Bucket) -> String {
    format!(
        "  s3: {{accesskey: {:?}, secretkey: {:?}, region: {:?}, regionendpoint: {:?}, bucket: {:?}, secure: false, \
         forcepathstyle: true, rootdirectory: {:?}}}\n  redirect: {{disable: true}}\n",
        bucket.access_key(),
        bucket.secret_key(),
        bucket.region(),
        bucket.endpoint(),
        bucket.name(),
        format!("/{}", bucket.prefix()),
    )
}
