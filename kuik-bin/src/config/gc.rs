//! The settings of garbage collection: when it runs, what it spares, and when uploads are given up.

use std::time::Duration;

use kuik_proxy::gc::{GcOptions, Notice};

use super::{
    ConfigFile, Problems,
    value::{duration, switch},
};

/// What is said about garbage collection, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawGc {
    /// How long after its start, and then after each run, garbage is collected while the registry serves: 30m, 24h, or
    /// never [default: 6h]
    #[arg(long, env = "KUIK_GC_INTERVAL", hide_env_values = true, value_name = "DURATION")]
    pub(super) gc_interval: Option<String>,
    /// Garbage stays that was written, pulled or asked for within so long: longer than a push or pull takes [default:
    /// 1h]
    #[arg(long, env = "KUIK_GC_GRACE", hide_env_values = true, value_name = "DURATION")]
    pub(super) gc_grace: Option<String>,
    /// Manifests are garbage too that no tag, index or subject leads to: true or false [default: false]
    #[arg(long, env = "KUIK_GC_DELETE_UNTAGGED", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) gc_delete_untagged: Option<String>,
    /// How long before anything is removed from a bucket the other processes that use it are told, which is how long
    /// each run, eviction and scrub takes longer: the same on all of them [default: 30s]
    #[arg(long, env = "KUIK_GC_NOTICE", hide_env_values = true, value_name = "DURATION")]
    pub(super) gc_notice: Option<String>,
    /// Uploads that nothing was sent to for so long are given up, before each run [default: 168h]
    #[arg(long, env = "KUIK_UPLOAD_IDLE", hide_env_values = true, value_name = "DURATION")]
    pub(super) upload_idle: Option<String>,
}

/// When garbage is collected, and what counts as garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcConfig {
    /// From one run to the next; `None` is never.
    pub interval: Option<Duration>,
    /// What is collected.
    pub options: GcOptions,
    /// When other processes on the store are told.
    pub notice: Notice,
    /// When uploads are given up.
    pub upload_idle: Duration,
}

const INTERVAL: &str = "gc-interval";
const GRACE: &str = "gc-grace";
const DELETE_UNTAGGED: &str = "gc-delete-untagged";
const NOTICE: &str = "gc-notice";
const UPLOAD_IDLE: &str = "upload-idle";

/// A run walks the whole store, so it is not for every minute; a process that is restarted every day still collects.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// As Docker's registry has it.
const DEFAULT_UPLOAD_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Long enough for a provider that takes seconds to answer.
const DEFAULT_NOTICE: Duration = Duration::from_secs(30);
const LEAST_NOTICE: Duration = Duration::from_secs(1);

impl RawGc {
    /// The settings that a file can have.
    pub(super) const KEYS: [&str; 5] = [INTERVAL, GRACE, DELETE_UNTAGGED, NOTICE, UPLOAD_IDLE];

    /// What was given here, and for the rest what the file says.
    pub(super) fn over(self, file: &ConfigFile) -> Self {
        Self {
            gc_interval: file.one(INTERVAL, self.gc_interval),
            gc_grace: file.one(GRACE, self.gc_grace),
            gc_delete_untagged: file.one(DELETE_UNTAGGED, self.gc_delete_untagged),
            gc_notice: file.one(NOTICE, self.gc_notice),
            upload_idle: file.one(UPLOAD_IDLE, self.upload_idle),
        }
    }

    pub(super) fn read(self, problems: &mut Problems) -> GcConfig {
        let interval = match self.gc_interval.as_deref() {
            Some("never") => None,
            text => Some(duration(INTERVAL, text, DEFAULT_INTERVAL, problems)),
        };
        if interval == Some(Duration::ZERO) {
            problems.add(INTERVAL, "it is zero: write never, or how long to wait between two runs");
        }
        let mut options = GcOptions::default();
        options.grace = duration(GRACE, self.gc_grace.as_deref(), options.grace, problems);
        options.delete_untagged =
            switch(DELETE_UNTAGGED, self.gc_delete_untagged.as_deref(), options.delete_untagged, problems);
        let notice = duration(NOTICE, self.gc_notice.as_deref(), DEFAULT_NOTICE, problems);
        if notice < LEAST_NOTICE {
            problems
                .add(NOTICE, format_args!("it is less than {LEAST_NOTICE:?}: no push would be quick enough"));
        }
        let notice = Notice::new(notice);
        let upload_idle = duration(UPLOAD_IDLE, self.upload_idle.as_deref(), DEFAULT_UPLOAD_IDLE, problems);
        GcConfig { interval, options, notice, upload_idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_no_interval_and_zero_is_a_mistake() {
        for (text, expected) in [
            (None, Some(DEFAULT_INTERVAL)),
            (Some("never"), None),
            (Some("90s"), Some(Duration::from_secs(90))),
        ] {
            let mut problems = Problems::default();
            let raw = RawGc { gc_interval: text.map(str::to_owned), ..RawGc::default() };
            let config = raw.read(&mut problems);
            assert_eq!(problems.into_result(Some(config)).unwrap().interval, expected, "{text:?}");
        }
        let mut problems = Problems::default();
        RawGc { gc_interval: Some("0s".to_owned()), ..RawGc::default() }.read(&mut problems);
        assert!(problems.into_result(Some(())).unwrap_err().to_string().contains("gc-interval: "));
    }
}
