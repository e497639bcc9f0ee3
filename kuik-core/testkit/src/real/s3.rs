//! S3 server: MinIO, with one bucket created at start.
//!
//! MinIO because clusters run it with kuik 1.x (whose chart installs it), and because it checks signatures and supports
//! multipart uploads and conditional requests as S3 does; it is one Go program without dependencies.

use std::{
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::SocketAddr,
    path::PathBuf,
};

use super::{
    error::{InstallSource, RealPartError},
    free_address,
    program::{Launch, Program, Ready},
};

const BUCKET: &str = "kuik";

/// A running MinIO, with an empty bucket and generated keys.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    program: Program,
    bucket: Bucket,
}

impl S3Server {
    /// Starts MinIO, and waits until it accepts requests.
    ///
    /// # Errors
    /// Returns an error if it is not installed, or does not start.
    pub async fn start() -> Result<Self, RealPartError> {
        // Another process may take the free port before it is used.
        for _ in 0..3 {
            match Self::start_once().await {
                Err(error) if error.is_address_in_use() => {}
                started => return started,
            }
        }
        Self::start_once().await
    }

    async fn start_once() -> Result<Self, RealPartError> {
        let address = free_address().await?;
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        // MinIO treats each directory in its data folder as a bucket.
        std::fs::create_dir_all(data.join(BUCKET))?;
        let bucket = Bucket {
            endpoint: format!("http://{address}"),
            prefix: String::new(),
            access_key: random(),
            secret_key: random() + &random(),
        };
        let launch =
            Launch::new("minio", InstallSource::BuiltFromGo, Ready::Ok(address, "/minio/health/cluster"))
                .arguments([
                    "server".into(),
                    "--quiet".into(),
                    "--address".into(),
                    address.to_string().into(),
                    "--certs-dir".into(),
                    folder.path().join("certs").into_os_string(),
                    data.into_os_string(),
                ])
                .environment("MINIO_ROOT_USER", &bucket.access_key)
                .environment("MINIO_ROOT_PASSWORD", &bucket.secret_key)
                .environment("MINIO_BROWSER", "off")
                .environment("MINIO_UPDATE", "off");
        let program = Program::start(launch, folder).await?;
        Ok(Self { address, program, bucket })
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the bucket with its credentials, limited to `prefix` (the whole bucket if it is empty).
    #[must_use]
    pub fn bucket(&self, prefix: &str) -> Bucket {
        Bucket { prefix: prefix.trim_matches('/').to_owned(), ..self.bucket.clone() }
    }

    /// The directory with MinIO's files of the bucket: a directory for each object.
    #[must_use]
    pub fn bucket_folder(&self) -> PathBuf {
        self.program.folder().join("data").join(BUCKET)
    }

    /// Kills MinIO: further connections are refused.
    ///
    /// # Errors
    /// Returns an error if it cannot be killed.
    pub async fn stop(&mut self) -> Result<(), RealPartError> {
        self.program.stop().await
    }

    /// Restarts it on the same port with the same keys and content.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub async fn resume(&mut self) -> Result<(), RealPartError> {
        self.program.resume().await
    }
}

/// Address and credentials of a bucket.
#[derive(Clone)]
pub struct Bucket {
    endpoint: String,
    prefix: String,
    access_key: String,
    secret_key: String,
}

impl Bucket {
    /// The endpoint URL, plain HTTP, for path-style requests.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The bucket's name.
    #[must_use]
    pub fn name(&self) -> &str {
        BUCKET
    }

    /// The key prefix, without leading and trailing slashes; empty for the whole bucket.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The region for request signing.
    #[must_use]
    pub fn region(&self) -> &str {
        "us-east-1"
    }

    /// The access key.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret key.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }
}

/// Omits the keys.
impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("endpoint", &self.endpoint)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Returns sixteen random characters.
fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
