//! Opening of a bucket: its provider, credentials and timeouts.
//!
//! Credentials come from the sources that each provider's own tools use: `AWS_…`, `GOOGLE_…` and `AZURE_…` in the
//! environment, web identities, and the machine's identity. This sends no request: the readiness check tests whether
//! the bucket can be reached.

use std::{path::Path, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, signer::Signer,
};

use super::{
    super::bucket_options::{BucketOptions, Provider},
    ObjectStorage,
    bucket::Bucket,
    client::Connector,
};

/// Invalid description of a bucket.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidBucket(String);

impl ObjectStorage {
    /// Opens a bucket without sending a request. `scratch_dir` holds blobs that are being fetched.
    ///
    /// # Errors
    /// Fails if the options and the environment are inconsistent.
    pub fn open(options: &BucketOptions, scratch_dir: &Path) -> Result<Self, InvalidBucket> {
        if !scratch_dir.is_dir() {
            let dir = scratch_dir.display();
            return Err(InvalidBucket(format!("the scratch directory {dir} does not exist")));
        }
        let connector = Connector { timeout: options.timeout };
        let store = match options.provider {
            Provider::S3 => {
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(&options.bucket)
                    .with_virtual_hosted_style_request(!options.path_style)
                    .with_allow_http(true)
                    .with_retry(retry(options))
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
                    .with_retry(retry(options))
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
                    .with_retry(retry(options))
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

/// A provider's client, as the backend uses it.
type Client = (Arc<dyn ObjectStore>, Arc<dyn Signer>);

fn both<S: ObjectStore + Signer>(client: S) -> Client {
    let client = Arc::new(client);
    (client.clone(), client)
}

fn retry(options: &BucketOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: options.retries,
        // After this time, a request is not retried.
        retry_timeout: options.timeout,
    }
}
