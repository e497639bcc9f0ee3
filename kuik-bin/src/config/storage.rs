//! Storage settings of a registry: location, scratch directory, and redirects to the bucket.

use std::path::PathBuf;

use kuik_proxy::store::BucketOptions;

use super::{
    ConfigFile, Problems,
    location::{Location, RawLocation},
    value::switch,
};

/// Unvalidated storage settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawStorage {
    #[command(flatten)]
    pub(super) location: RawLocation,
    /// Directory for blobs while they are fetched into a bucket, with room for all concurrent fetches [default: the system's
    /// temporary directory]
    #[arg(long, env = "KUIK_SCRATCH_DIR", hide_env_values = true, value_name = "DIR")]
    pub(super) scratch_dir: Option<String>,
    /// Redirect blob requests to pre-signed URLs of the object storage, valid for 20 minutes; clients must be able to reach
    /// and trust its endpoint [default: false]
    #[arg(long, env = "KUIK_STORAGE_REDIRECTS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) storage_redirects: Option<String>,
}

/// Validated storage settings.
#[derive(Debug)]
#[non_exhaustive]
pub enum Storage {
    /// In a directory.
    Directory(PathBuf),
    /// In a bucket.
    Bucket {
        /// Bucket and client options.
        options: BucketOptions,
        /// Directory for blobs while they are fetched.
        scratch_dir: PathBuf,
        /// Whether clients are redirected to the object storage for blobs.
        redirects: bool,
    },
}

const SCRATCH_DIR: &str = "scratch-dir";
const REDIRECTS: &str = "storage-redirects";

impl RawStorage {
    /// Keys of these settings in the configuration file, without those of the location.
    pub(super) const KEYS: [&str; 2] = [SCRATCH_DIR, REDIRECTS];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            location: self.location.merge_file(file),
            scratch_dir: file.one(SCRATCH_DIR, self.scratch_dir),
            storage_redirects: file.one(REDIRECTS, self.storage_redirects),
        }
    }

    /// Returns `None` only if a problem was added.
    pub(super) fn read(self, problems: &mut Problems) -> Option<Storage> {
        let location = self.location.read(problems);
        let scratch_dir = self.scratch_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from);
        if let Some(dir) = scratch_dir.as_ref().filter(|dir| !dir.is_dir()) {
            problems.add(SCRATCH_DIR, format_args!("no such directory: {}", dir.display()));
        }
        let redirects = switch(REDIRECTS, self.storage_redirects.as_deref(), false, problems);
        match location? {
            Location::Directory(dir) => {
                if redirects {
                    problems.add(REDIRECTS, "only valid for buckets, and the storage is a directory");
                }
                Some(Storage::Directory(dir))
            }
            Location::Bucket(options) => {
                let scratch_dir = scratch_dir.unwrap_or_else(std::env::temp_dir);
                Some(Storage::Bucket { options, scratch_dir, redirects })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(storage: &str, redirects: Option<&str>) -> Result<Storage, String> {
        let raw = RawStorage {
            location: RawLocation { storage: Some(storage.to_owned()), ..RawLocation::default() },
            scratch_dir: Some("/tmp".to_owned()),
            storage_redirects: redirects.map(str::to_owned),
        };
        let mut problems = Problems::default();
        let read = raw.read(&mut problems);
        problems.into_result(read).map_err(|error| error.to_string())
    }

    #[test]
    fn redirects_require_a_bucket_and_are_off_by_default() {
        for (text, expected) in [(None, false), (Some("false"), false), (Some("true"), true)] {
            let Ok(Storage::Bucket { redirects, scratch_dir, .. }) = read("s3://images", text) else {
                panic!("not a bucket")
            };
            assert_eq!((redirects, scratch_dir), (expected, PathBuf::from("/tmp")), "{text:?}");
        }
        let report = read("file:///data", Some("true")).unwrap_err();
        assert!(report.contains("storage-redirects: only valid for buckets"), "{report}");
        assert!(matches!(read("file:///data", None), Ok(Storage::Directory(_))));
    }
}
