//! Location and credentials of a bucket: plain data, which a configuration can name in builds without object storage
//! too.

use std::{fmt, time::Duration};

/// Provider of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provider {
    /// Amazon S3, or a compatible provider.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage, whose buckets are called containers.
    Azure,
}

/// Location of a bucket, with access options.
#[derive(Clone)]
#[non_exhaustive]
pub struct BucketOptions {
    /// Provider.
    pub provider: Provider,
    /// Name of the bucket.
    pub bucket: String,
    /// Key prefix of the store; empty for the whole bucket.
    pub prefix: String,
    /// Endpoint URL of the provider, if it is not the default.
    pub endpoint: Option<String>,
    /// Region, if the provider needs one.
    pub region: Option<String>,
    /// S3 access key and secret, instead of those in the environment.
    pub access_key: Option<(String, String)>,
    /// Whether S3 addresses the bucket by path and not by host. Default: true; if false, an endpoint is that of the
    /// bucket itself.
    pub path_style: bool,
    /// Time limit for the response to a request, and for each read of its body. Default: 20 s.
    pub timeout: Duration,
    /// Number of retries of a request that was throttled or interrupted. Default: 6.
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

impl BucketOptions {
    /// A whole bucket, at the provider's default endpoint.
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

    /// Returns the URL that configures it, for errors.
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
}
