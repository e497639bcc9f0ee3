//! Storage location: a URL, and the client options of a bucket. Used by the registry and by `kuik gc`.

use std::{path::PathBuf, str::FromStr};

use kuik_proxy::store::{BucketOptions, Provider};

use super::{
    ConfigFile, InvalidConfig, Problems,
    value::{duration, switch},
};

/// Unvalidated storage location.
#[derive(Debug, Default, clap::Args)]
pub struct RawLocation {
    /// Storage location, in the layout of Docker's registry: file:///DIR (created if missing), s3://BUCKET[/PREFIX],
    /// gs://BUCKET[/PREFIX] or az://CONTAINER[/PREFIX]. Credentials for a bucket come from the environment (AWS_…,
    /// GOOGLE_…, AZURE_…), a web identity, or the instance identity. Required
    #[arg(long, env = "KUIK_STORAGE", hide_env_values = true, value_name = "URL")]
    pub(super) storage: Option<String>,
    /// Endpoint of the object storage, http:// or https:// [default: the provider's own]
    #[arg(long, env = "KUIK_STORAGE_ENDPOINT", hide_env_values = true, value_name = "URL")]
    pub(super) storage_endpoint: Option<String>,
    /// Region of the bucket [default: AWS_REGION, or us-east-1]
    #[arg(long, env = "KUIK_STORAGE_REGION", hide_env_values = true, value_name = "REGION")]
    pub(super) storage_region: Option<String>,
    /// Use path-style requests, with the bucket in the path; with false the bucket is in the host name, and an endpoint is
    /// that of the bucket [default: true]
    #[arg(long, env = "KUIK_STORAGE_PATH_STYLE", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) storage_path_style: Option<String>,
    /// Allow a plain HTTP endpoint [default: false]
    #[arg(long, env = "KUIK_STORAGE_ALLOW_HTTP", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) storage_allow_http: Option<String>,
    /// Timeout of one request to the object storage, and of a stalled response [default: 20s]
    #[arg(long, env = "KUIK_STORAGE_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    pub(super) storage_timeout: Option<String>,
}

/// Storage location.
#[derive(Debug)]
#[non_exhaustive]
pub enum Location {
    /// In a directory.
    Directory(PathBuf),
    /// In a bucket, with its client options.
    Bucket(BucketOptions),
}

/// Parsed storage URL.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Directory(PathBuf),
    Bucket { provider: Provider, bucket: String, prefix: String },
}

/// An invalid storage URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStorage {
    /// The URL has an unknown form.
    #[error(
        "{0:?} is not file:///DIR, s3://BUCKET[/PREFIX], gs://BUCKET[/PREFIX] or az://CONTAINER[/PREFIX]"
    )]
    Unknown(String),
    /// The bucket or the prefix has an invalid character, or an empty part.
    #[error(
        "{0:?} is not a valid bucket or prefix: use letters, digits and .-_, and / between parts of a prefix"
    )]
    Malformed(String),
}

const STORAGE: &str = "storage";
const ENDPOINT: &str = "storage-endpoint";
const REGION: &str = "storage-region";
const PATH_STYLE: &str = "storage-path-style";
const ALLOW_HTTP: &str = "storage-allow-http";
const TIMEOUT: &str = "storage-timeout";

impl RawLocation {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 6] = [STORAGE, ENDPOINT, REGION, PATH_STYLE, ALLOW_HTTP, TIMEOUT];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            storage: file.one(STORAGE, self.storage),
            storage_endpoint: file.one(ENDPOINT, self.storage_endpoint),
            storage_region: file.one(REGION, self.storage_region),
            storage_path_style: file.one(PATH_STYLE, self.storage_path_style),
            storage_allow_http: file.one(ALLOW_HTTP, self.storage_allow_http),
            storage_timeout: file.one(TIMEOUT, self.storage_timeout),
        }
    }

    /// Validates the location.
    ///
    /// # Errors
    /// Returns an error that lists every invalid setting.
    pub fn validate(self) -> Result<Location, InvalidConfig> {
        let mut problems = Problems::default();
        let location = self.read(&mut problems);
        problems.into_result(location)
    }

    /// Returns `None` only if a problem was added.
    pub(super) fn read(self, problems: &mut Problems) -> Option<Location> {
        let address = match self.storage.as_deref() {
            None | Some("") => {
                problems.add(STORAGE, "required: set the storage location");
                None
            }
            Some(text) => problems.check(STORAGE, text.parse()),
        };
        let path_style = switch(PATH_STYLE, self.storage_path_style.as_deref(), true, problems);
        let allow_http = switch(ALLOW_HTTP, self.storage_allow_http.as_deref(), false, problems);
        let mut options = BucketOptions::new(Provider::S3, "");
        let timeout = duration(TIMEOUT, self.storage_timeout.as_deref(), options.timeout, problems);
        let endpoint = self.storage_endpoint.filter(|endpoint| !endpoint.is_empty());
        if let Some(endpoint) = &endpoint {
            check_endpoint(endpoint, allow_http, problems);
        }
        match address? {
            Address::Directory(dir) => {
                if endpoint.is_some() {
                    problems.add(ENDPOINT, "only valid for buckets, and the storage is a directory");
                }
                Some(Location::Directory(dir))
            }
            Address::Bucket { provider, bucket, prefix } => {
                options = BucketOptions::new(provider, &bucket);
                options.prefix = prefix;
                options.endpoint = endpoint;
                options.region = self.storage_region.filter(|region| !region.is_empty());
                options.path_style = path_style;
                options.timeout = timeout;
                Some(Location::Bucket(options))
            }
        }
    }
}

fn check_endpoint(endpoint: &str, allow_http: bool, problems: &mut Problems) {
    match endpoint.split_once("://") {
        Some(("https", host)) if !host.is_empty() => {}
        Some(("http", host)) if !host.is_empty() && allow_http => {}
        Some(("http", host)) if !host.is_empty() => {
            problems.add(ENDPOINT, format_args!("plain HTTP: use https, or set {ALLOW_HTTP}"));
        }
        _ => problems.add(ENDPOINT, "not a URL: use https://HOST[:PORT]"),
    }
}

impl FromStr for Address {
    type Err = InvalidStorage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || InvalidStorage::Unknown(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        let provider = match scheme {
            "file" if rest.starts_with('/') => return Ok(Self::Directory(rest.into())),
            "s3" => Provider::S3,
            "gs" => Provider::Google,
            "az" => Provider::Azure,
            _ => return Err(unknown()),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let parts = (!prefix.is_empty()).then(|| prefix.split('/')).into_iter().flatten();
        match std::iter::once(bucket).chain(parts).find(|part| !is_part(part)) {
            Some(part) => Err(InvalidStorage::Malformed(part.to_owned())),
            None => Ok(Self::Bucket { provider, bucket: bucket.to_owned(), prefix: prefix.to_owned() }),
        }
    }
}

fn is_part(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !matches!(text, "" | "." | "..") && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn reads_urls_of_storages() {
        assert_eq!("file:///var/lib/kuik".parse(), Ok(Address::Directory("/var/lib/kuik".into())));
        for (url, provider, bucket, prefix) in [
            ("s3://images", Provider::S3, "images", ""),
            ("s3://my.images/", Provider::S3, "my.images", ""),
            ("gs://images/a/b_c/", Provider::Google, "images", "a/b_c"),
            ("az://images/x", Provider::Azure, "images", "x"),
        ] {
            let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
            assert_eq!(url.parse(), Ok(Address::Bucket { provider, bucket, prefix }), "{url}");
        }
        for unknown in ["", "/var/lib", "file://var/lib", "file:/var", "http://host/", "S3://bucket"] {
            assert_eq!(unknown.parse::<Address>(), Err(InvalidStorage::Unknown(unknown.to_owned())));
        }
        for (url, part) in [
            ("s3://", ""),
            ("s3:///x", ""),
            ("gs://b/a//b", ""),
            ("az://b/..", ".."),
            ("s3://key:secret@b", "key:secret@b"),
        ] {
            assert_eq!(url.parse::<Address>(), Err(InvalidStorage::Malformed(part.to_owned())), "{url}");
        }
    }

    #[test]
    fn a_bucket_has_settings_of_its_own() {
        let raw = RawLocation {
            storage: text("s3://images/cache"),
            storage_endpoint: text("http://minio:9000"),
            storage_region: text("eu-west-3"),
            storage_path_style: text("false"),
            storage_allow_http: text("true"),
            storage_timeout: text("7s"),
        };
        let Ok(Location::Bucket(options)) = raw.validate() else { panic!("it is a bucket") };
        assert_eq!(options.name(), "s3://images/cache");
        assert_eq!(options.endpoint.as_deref(), Some("http://minio:9000"));
        assert_eq!((options.region.as_deref(), options.path_style), (Some("eu-west-3"), false));
        assert_eq!(options.timeout.as_secs(), 7);
    }

    #[test]
    fn unusable_endpoints_are_rejected() {
        for (storage, endpoint, problem) in [
            ("s3://images", "http://minio:9000", "storage-endpoint: plain HTTP"),
            ("s3://images", "minio:9000", "storage-endpoint: not a URL"),
            ("file:///data", "https://minio", "storage-endpoint: only valid for buckets"),
        ] {
            let raw = RawLocation {
                storage: text(storage),
                storage_endpoint: text(endpoint),
                ..RawLocation::default()
            };
            let report = raw.validate().unwrap_err().to_string();
            assert!(report.contains(problem), "{report}");
        }
    }
}
