//! Retention settings: how long clusters' documents count, and how long unmanaged images are kept.

use std::time::Duration;

use kuik_proxy::{maintenance::quota::UnmanagedExpiry, stack::RetentionLapse};

use super::{ConfigFile, Problems, value::duration};

/// Unvalidated retention settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawRetention {
    /// Time since the last pull after which an image is removed that no cluster manages, such as 720h, or never. With
    /// --pull-through, repositories that clients push to are skipped [default: 720h with --pull-through, otherwise never]
    #[arg(long, env = "KUIK_UNMANAGED_EXPIRY", hide_env_values = true, value_name = "DURATION")]
    pub(super) unmanaged_expiry: Option<String>,
    /// How long images of a cluster are protected from eviction when its controllers no longer report them [default: 720h]
    #[arg(long, env = "KUIK_RETENTION_LAPSE", hide_env_values = true, value_name = "DURATION")]
    pub(super) retention_lapse: Option<String>,
}

const UNMANAGED: &str = "unmanaged-expiry";
const LAPSE: &str = "retention-lapse";

impl RawRetention {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 2] = [UNMANAGED, LAPSE];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            unmanaged_expiry: file.one(UNMANAGED, self.unmanaged_expiry),
            retention_lapse: file.one(LAPSE, self.retention_lapse),
        }
    }

    /// Returns when unmanaged images expire in a registry that fetches them itself if `pull_through`, and how long a
    /// document counts.
    pub(super) fn read(
        self,
        pull_through: bool,
        problems: &mut Problems,
    ) -> (Option<UnmanagedExpiry>, RetentionLapse) {
        let after = match self.unmanaged_expiry.as_deref() {
            Some("never") => None,
            None => pull_through.then_some(UnmanagedExpiry::DEFAULT_AFTER),
            text => Some(duration(UNMANAGED, text, UnmanagedExpiry::DEFAULT_AFTER, problems)),
        };
        if after == Some(Duration::ZERO) {
            problems.add(UNMANAGED, "must not be zero: use never to keep unmanaged images");
        }
        let expiry = match pull_through {
            true => UnmanagedExpiry::of_pulled_through,
            false => UnmanagedExpiry::of_everything,
        };
        let RetentionLapse(default) = RetentionLapse::default();
        let lapse = duration(LAPSE, self.retention_lapse.as_deref(), default, problems);
        if lapse.is_zero() {
            problems.add(LAPSE, "must not be zero");
        }
        (after.map(expiry), RetentionLapse(lapse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pulled_through_content_expires_by_default() {
        let hour = Duration::from_secs(3600);
        for (text, pull_through, expected) in [
            (None, false, None),
            (None, true, Some(UnmanagedExpiry::of_pulled_through(UnmanagedExpiry::DEFAULT_AFTER))),
            (Some("never"), true, None),
            (Some("1h"), true, Some(UnmanagedExpiry::of_pulled_through(hour))),
            (Some("1h"), false, Some(UnmanagedExpiry::of_everything(hour))),
        ] {
            let mut problems = Problems::default();
            let raw = RawRetention { unmanaged_expiry: text.map(str::to_owned), ..RawRetention::default() };
            let read = raw.read(pull_through, &mut problems);
            assert_eq!(problems.into_result(Some(read)).unwrap().0, expected, "{text:?} {pull_through}");
        }
    }
}
