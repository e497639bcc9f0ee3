//! Finds a bucket: its provider, its credentials, and how patient we are with it.
//!
//! Credentials come from where each provider's own tools look: `AWS_…`, `GOOGLE_…` and `AZURE_…` in the environment,
//! web identities, and what the machine was given. Nothing is asked of the provider here: whether the bucket can be
//! reached is a matter of readiness.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, signer::Signer,
};

use super::{ObjectStorage, bucket::Bucket, client::Connector};

/// Who keeps a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provider {
    /// Amazon S3, or what speaks like it.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage, whose buckets are called containers.
    Azure,
}

/// Where a bucket is, and how it is asked.
#[derive(Clone)]
#[non_exhaustive]
pub struct BucketOptions {
    /// Who keeps it.
    pub provider: Provider,
    /// Its name.
    pub bucket: String,
    /// Below which key our part of it is; empty is all of it.
    pub prefix: String,
    /// Where the provider is, as a URL, where that does not follow from what it is.
    pub endpoint: Option<String>,
    /// In which region, where that matters.
    pub region: Option<String>,
    /// The access key of S3 and its secret, in place of what the environment says.
    pub access_key: Option<(String, String)>,
    /// Whether S3 finds the bucket by the path, and not by the host. True; with false, an endpoint is that of the
    /// bucket itself.
    pub path_style: bool,
    /// How long one request may take to be answered, and an answer may stand still. 20 s.
    pub timeout: Duration,
    /// How often a request is tried again that the provider was too busy for, or that broke off. 6 times.
    pub retries: usize,
}

impl fmt::Debug for BucketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketOptions")
            .field("name", &self.name())
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A bucket cannot be what it is said to be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidBucket(String);

impl BucketOptions {
    /// All of a bucket, at the provider itself.
    #[must_use]
    pub fn new(provider: Provider, bucket: &str) -> Self {
        Self {
            provider,
            bucket: bucket.to_owned(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            access_key: None,
            path_style: true,
            timeout: Duration::from_secs(20),
            retries: 6,
        }
    }

    /// What errors call it: the URL that it is configured by.
    #[must_use]
    pub fn name(&self) -> String {
        let scheme = match self.provider {
            Provider::S3 => "s3",
            Provider::Google => "gs",
            Provider::Azure => "az",
        };
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{scheme}://{}{slash}{}", self.bucket, self.prefix)
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(3),
                base: 2.0,
            },
            max_retries: self.retries,
            // Past this, a request is not tried again.
            retry_timeout: self.timeout,
        }
    }
}

impl ObjectStorage {
    /// Opens a bucket, and asks nothing of it yet. Blobs that are being fetched lie in `scratch_dir`.
    ///
    /// # Errors
    /// Where what the options and the environment say makes no sense.
    pub fn open(options: &BucketOptions, scratch_dir: &Path) -> Result<Self, InvalidBucket> {
        if !scratch_dir.is_dir() {
            let dir = scratch_dir.display();
            return Err(InvalidBucket(format!("there is no scratch directory {dir}")));
        }
        let connector = Connector { timeout: options.timeout };
        let store = match options.provider {
            Provider::S3 => {
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(&options.bucket)
                    .with_virtual_hosted_style_request(!options.path_style)
                    .with_allow_http(true)
                    .with_retry(options.retry())
                    .with_http_connector(connector);
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if let Some(region) = &options.region {
                    builder = builder.with_region(region);
                }
                if let Some((id, secret)) = &options.access_key {
                    builder = builder.with_access_key_id(id).with_secret_access_key(secret);
                }
                builder.build().map(both)
            }
            Provider::Google => {
                let mut builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(&options.bucket)
                    .with_retry(options.retry())
                    .with_http_connector(connector);
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_base_url(endpoint);
                }
                builder.build().map(both)
            }
            Provider::Azure => {
                let mut builder = MicrosoftAzureBuilder::from_env()
                    .with_container_name(&options.bucket)
                    .with_allow_http(true)
                    .with_retry(options.retry())
                    .with_http_connector(connector);
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                builder.build().map(both)
            }
        };
        let name = options.name();
        let (store, signer) = store.map_err(|error| InvalidBucket(format!("cannot use {name}: {error}")))?;
        let bucket = Bucket::new(store, name, options.prefix.clone()).signed_by(signer);
        Ok(Self::over(bucket, scratch_dir))
    }
}

/// What a provider's client is to us.
type Client = (Arc<dyn ObjectStore>, Arc<dyn Signer>);

fn both<S: ObjectStore + Signer>(client: S) -> Client {
    let client = Arc::new(client);
    (client.clone(), client)
}
