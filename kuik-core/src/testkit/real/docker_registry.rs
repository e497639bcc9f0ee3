//! Docker's registry, in the version that Debian has or the one after it, over a folder or a bucket.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    clients::run,
    error::{Origin, RealPartError},
    free_address,
    program::{Launch, Program, Ready},
    s3::Bucket,
};

/// Which of Docker's registries is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryVersion {
    /// 2.8, a Debian package.
    #[default]
    V2,
    /// 3, built from Go: for tests that are run by `make built`.
    V3,
}

/// How Docker's registry is to be run.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// A user and a password that are demanded with Basic authentication.
    pub basic: Option<(String, String)>,
    /// A certificate and its key, both as PEM, to serve TLS with.
    pub tls: Option<(String, String)>,
    /// The folder to keep content in; a temporary one where neither it nor a bucket is given.
    pub storage: Option<PathBuf>,
    /// The part of a bucket to keep content in.
    pub bucket: Option<Bucket>,
    /// Which registry it is.
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
    /// Starts one, and waits until it answers.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub async fn start(options: &RegistryOptions) -> Result<Self, RealPartError> {
        // Somebody else may take the free port before it is used.
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
        let (name, origin) = match options.version {
            RegistryVersion::V2 => ("docker-registry", Origin::Debian("docker-registry")),
            RegistryVersion::V3 => ("docker-registry-3", Origin::BuiltFromGo),
        };
        // Version 3 would send traces to a collector on this machine.
        let launch = Launch::new(name, origin, Ready::Http(address))
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

    /// Stops it: from now on, connections are refused.
    ///
    /// # Errors
    /// Where it cannot be stopped.
    pub async fn stop(&mut self) -> Result<(), RealPartError> {
        self.program.stop().await
    }

    /// Starts it again on the same port with the same content.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn resume(&mut self) -> Result<(), RealPartError> {
        self.program.resume().await
    }
}

fn in_folder(folder: &Path) -> String {
    format!("  filesystem: {{rootdirectory: {folder:?}}}\n")
}

/// Blobs are sent by the registry itself: its clients need not reach the S3 server.
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
