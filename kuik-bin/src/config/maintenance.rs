//! Settings of the maintenance of a store: size limit, retention, scrubbing and garbage collection.

use kuik_proxy::stack::MaintenanceOptions;

use super::{ConfigFile, Problems, gc::RawGc, quota::RawQuota, retention::RawRetention, scrub::RawScrub};

/// Unvalidated maintenance settings, the same for every program with a store.
#[derive(Debug, Default, clap::Args)]
pub struct RawMaintenance {
    #[command(flatten)]
    pub(super) quota: RawQuota,
    #[command(flatten)]
    pub(super) retention: RawRetention,
    #[command(flatten)]
    pub(super) scrub: RawScrub,
    #[command(flatten)]
    pub(super) gc: RawGc,
}

impl RawMaintenance {
    /// Keys of these settings in the configuration file, by group.
    pub(super) const GROUPS: [&[&str]; 4] =
        [&RawQuota::KEYS, &RawRetention::KEYS, &RawScrub::KEYS, &RawGc::KEYS];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            quota: self.quota.merge_file(file),
            retention: self.retention.merge_file(file),
            scrub: self.scrub.merge_file(file),
            gc: self.gc.merge_file(file),
        }
    }

    /// Returns the options for a store that fetches missing content itself if `pull_through`.
    pub(super) fn read(self, pull_through: bool, problems: &mut Problems) -> MaintenanceOptions {
        let (max_bytes, scrub) = (self.quota.read(problems), self.scrub.read(problems));
        let (unmanaged, retention_lapse) = self.retention.read(pull_through, problems);
        MaintenanceOptions { max_bytes, unmanaged, retention_lapse, scrub, gc: self.gc.read(problems) }
    }
}

#[cfg(test)]
impl RawMaintenance {
    /// Returns settings that are all invalid.
    pub(super) fn invalid() -> Self {
        let text = |text: &str| Some(text.to_owned());
        Self {
            quota: RawQuota { max_size: text("lots") },
            retention: RawRetention { unmanaged_expiry: text("0s"), retention_lapse: text("a while") },
            scrub: RawScrub { scrub_interval: text("often"), scrub_rate: text("0") },
            gc: RawGc {
                gc_interval: text("often"),
                gc_grace: text("-1h"),
                gc_delete_untagged: text("some"),
                gc_notice: text("shortly"),
                upload_idle: text("1"),
            },
        }
    }
}
