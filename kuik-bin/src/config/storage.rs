//! How a registry uses the place that its content is kept in: where blobs wait on their way into a bucket, and whether
//! clients get them from there.

use std::path::PathBuf;

use kuik_proxy::store::BucketOptions;

use super::{
    ConfigFile, Problems,
    location::{Location, RawLocation},
    value::switch,
};

/// What is said about storage, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawStorage {
    #[command(flatten)]
    pub(super) location: RawLocation,
    /// Where blobs lie that are being fetched into a bucket: a directory with room for those that are fetched at one
    /// time [default: the system's temporary directory]
    #[arg(long, env = "KUIK_SCRATCH_DIR", hide_env_values = true, value_name = "DIR")]
    pub(super) scratch_dir: Option<String>,
    /// Clients get blobs from the provider of the bucket itself: they are sent to URLs that are good for 20 minutes, on
    /// the host of the storage's endpoint, which they have to reach and to trust. true or false [default: false]
    #[arg(long, env = "KUIK_STORAGE_REDIRECTS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) storage_redirects: Option<String>,
}

/// Where a registry keeps its content.
#[derive(Debug)]
#[non_exhaustive]
pub enum Storage {
    /// In a directory.
    Directory(PathBuf),
    /// In a bucket.
    Bucket {
        /// Which, and how it is asked.
        options: BucketOptions,
        /// Where blobs lie that are being fetched.
        scratch_dir: PathBuf,
        /// Whether clients get blobs from the provider itself.
        redirects: bool,
    },
}

const SCRATCH_DIR: &str = "scratch-dir";
const REDIRECTS: &str = "storage-redirects";

impl RawStorage {
    /// The settings that a file can have, beside those of the location.
    pub(super) const KEYS: [&str; 2] = [SCRATCH_DIR, REDIRECTS];

    /// What was given here, and for the rest what the file says.
    pub(super) fn over(self, file: &ConfigFile) -> Self {
        Self {
            location: self.location.over(file),
            scratch_dir: file.one(SCRATCH_DIR, self.scratch_dir),
            storage_redirects: file.one(REDIRECTS, self.storage_redirects),
        }
    }

    /// `None` only where a problem was added.
    pub(super) fn read(self, problems: &mut Problems) -> Option<Storage> {
        let location = self.location.read(problems);
        let scratch_dir = self.scratch_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from);
        if let Some(dir) = scratch_dir.as_ref().filter(|dir| !dir.is_dir()) {
            problems.add(SCRATCH_DIR, format_args!("there is no directory {}", dir.display()));
        }
        let redirects = switch(REDIRECTS, self.storage_redirects.as_deref(), false, problems);
        match location? {
            Location::Directory(dir) => {
                if redirects {
                    problems.add(REDIRECTS, "they are to buckets, and content is kept in a directory");
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
    fn clients_are_sent_to_a_bucket_where_it_is_said_and_never_to_a_directory() {
        for (text, expected) in [(None, false), (Some("false"), false), (Some("true"), true)] {
            let Ok(Storage::Bucket { redirects, scratch_dir, .. }) = read("s3://images", text) else {
                panic!("it is a bucket")
            };
            assert_eq!((redirects, scratch_dir), (expected, PathBuf::from("/tmp")), "{text:?}");
        }
        let report = read("file:///data", Some("true")).unwrap_err();
        assert!(report.contains("storage-redirects: they are to buckets"), "{report}");
        assert!(matches!(read("file:///data", None), Ok(Storage::Directory(_))));
    }
}
