//! A real S3 server, MinIO, with one bucket that is there from the start.
//!
//! MinIO because it is the one that clusters run beside kuik's predecessor (its chart installs it), checks signatures,
//! and takes multipart uploads and conditional requests as S3 does; it is one Go program that needs nothing else.

use std::{
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::SocketAddr,
    path::PathBuf,
};

use super::{
    error::{Origin, RealPartError},
    free_address,
    program::{Launch, Program, Ready},
};

const BUCKET: &str = "kuik";

/// A running MinIO, with an empty bucket and keys of its own.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    program: Program,
    bucket: Bucket,
}

impl S3Server {
    /// Starts one, and waits until it takes requests.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub async fn start() -> Result<Self, RealPartError> {
        // Somebody else may take the free port before it is used.
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
        // To MinIO, a directory beside its own is a bucket.
        std::fs::create_dir_all(data.join(BUCKET))?;
        let bucket = Bucket {
            endpoint: format!("http://{address}"),
            prefix: String::new(),
            access_key: random(),
            secret_key: random() + &random(),
        };
        let launch = Launch::new("minio", Origin::BuiltFromGo, Ready::Ok(address, "/minio/health/cluster"))
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

    /// The bucket that is there, and what is needed to use it below `prefix` (all of it where that is empty).
    #[must_use]
    pub fn bucket(&self, prefix: &str) -> Bucket {
        Bucket { prefix: prefix.trim_matches('/').to_owned(), ..self.bucket.clone() }
    }

    /// The directory that MinIO keeps the bucket's objects in, in a form of its own: a directory for each object.
    #[must_use]
    pub fn bucket_folder(&self) -> PathBuf {
        self.program.folder().join("data").join(BUCKET)
    }

    /// Kills it: from now on, connections are refused.
    ///
    /// # Errors
    /// Where it cannot be killed.
    pub async fn stop(&mut self) -> Result<(), RealPartError> {
        self.program.stop().await
    }

    /// Starts it again on the same port with the same keys and content.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn resume(&mut self) -> Result<(), RealPartError> {
        self.program.resume().await
    }
}

/// What is needed to use a bucket.
#[derive(Clone)]
pub struct Bucket {
    endpoint: String,
    prefix: String,
    access_key: String,
    secret_key: String,
}

impl Bucket {
    /// The URL to send requests to, with the bucket as first part of the path; plain http.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The bucket's name.
    #[must_use]
    pub fn name(&self) -> &str {
        BUCKET
    }

    /// What all keys start with, without slashes at its ends; empty for all of the bucket.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The region that requests are signed for.
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

/// Without the keys.
impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("endpoint", &self.endpoint)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Sixteen characters that nobody guesses.
fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
