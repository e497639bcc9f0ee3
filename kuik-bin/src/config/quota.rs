//! Size limit settings of a registry.

use super::{ConfigFile, Problems, quantity::Quantity};

/// Unvalidated size limit.
#[derive(Debug, Default, clap::Args)]
pub struct RawQuota {
    /// Size limit of the stored content, such as 500M or 10Gi. When it is reached, garbage is collected first, then images
    /// are evicted: unmanaged ones that were not pulled recently, expired ones, unused ones; never those that a cluster
    /// reports as in use or retained [default: none]
    #[arg(long, env = "KUIK_MAX_SIZE", hide_env_values = true, value_name = "SIZE")]
    pub(super) max_size: Option<String>,
}

const MAX_SIZE: &str = "max-size";

impl RawQuota {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 1] = [MAX_SIZE];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self { max_size: file.one(MAX_SIZE, self.max_size) }
    }

    /// Returns the limit in bytes, if there is one.
    pub(super) fn read(self, problems: &mut Problems) -> Option<u64> {
        let text = self.max_size.filter(|text| !text.is_empty());
        let max_bytes = text.and_then(|text| problems.check(MAX_SIZE, text.parse::<Quantity>()));
        if max_bytes == Some(Quantity(0)) {
            problems.add(MAX_SIZE, "must not be zero");
        }
        max_bytes.map(|Quantity(bytes)| bytes)
    }
}
