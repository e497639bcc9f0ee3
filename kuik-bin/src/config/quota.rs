//! How much a registry may keep.

use super::{ConfigFile, Problems, quantity::Quantity};

/// How much a registry may keep, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawQuota {
    /// How many bytes of content may be kept: 500M, 10Gi. When it gets full, garbage goes first, then images that are
    /// marked as expired, then those that were pulled least recently, and never those that are pinned. Without it, the
    /// disk is the limit
    #[arg(long, env = "KUIK_MAX_SIZE", hide_env_values = true, value_name = "SIZE")]
    pub(super) max_size: Option<String>,
}

/// How much a registry may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaConfig {
    /// In bytes; without it, the disk is the limit.
    pub max_bytes: Option<u64>,
}

const MAX_SIZE: &str = "max-size";

impl RawQuota {
    /// The settings that a file can have.
    pub(super) const KEYS: [&str; 1] = [MAX_SIZE];

    /// What was given here, and for the rest what the file says.
    pub(super) fn over(self, file: &ConfigFile) -> Self {
        Self { max_size: file.one(MAX_SIZE, self.max_size) }
    }

    pub(super) fn read(self, problems: &mut Problems) -> QuotaConfig {
        let text = self.max_size.filter(|text| !text.is_empty());
        let max_bytes = text.and_then(|text| problems.check(MAX_SIZE, text.parse::<Quantity>()));
        if max_bytes == Some(Quantity(0)) {
            problems.add(MAX_SIZE, "with no room at all nothing can be kept");
        }
        QuotaConfig { max_bytes: max_bytes.map(|Quantity(bytes)| bytes) }
    }
}
