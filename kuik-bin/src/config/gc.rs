//! Garbage collection settings: interval, grace period, and upload expiry.

use std::time::Duration;

use kuik_proxy::{
    maintenance::gc::{GcOptions, NoticePeriod},
    stack::GcPlan,
};

use super::{
    ConfigFile, Problems,
    value::{duration, switch},
};

/// Unvalidated garbage collection settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawGc {
    /// Interval of online garbage collection, such as 30m or 24h, or never [default: 6h]
    #[arg(long, env = "KUIK_GC_INTERVAL", hide_env_values = true, value_name = "DURATION")]
    pub(super) gc_interval: Option<String>,
    /// Minimum age of garbage: content written, pulled or requested within this time is kept; must exceed the duration of
    /// a push or pull [default: 1h]
    #[arg(long, env = "KUIK_GC_GRACE", hide_env_values = true, value_name = "DURATION")]
    pub(super) gc_grace: Option<String>,
    /// Also collect manifests that no tag, index or subject refers to [default: false]
    #[arg(long, env = "KUIK_GC_DELETE_UNTAGGED", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) gc_delete_untagged: Option<String>,
    /// How long a removal from a bucket is announced to the other processes on it in advance; must be the same on all of
    /// them, and delays each collection, eviction and scrub by as much [default: 30s]
    #[arg(long, env = "KUIK_GC_NOTICE", hide_env_values = true, value_name = "DURATION")]
    pub(super) gc_notice: Option<String>,
    /// Abort uploads that have received nothing for this time, before each collection [default: 168h]
    #[arg(long, env = "KUIK_UPLOAD_IDLE", hide_env_values = true, value_name = "DURATION")]
    pub(super) upload_idle: Option<String>,
}

const INTERVAL: &str = "gc-interval";
const GRACE: &str = "gc-grace";
const DELETE_UNTAGGED: &str = "gc-delete-untagged";
const NOTICE: &str = "gc-notice";
const UPLOAD_IDLE: &str = "upload-idle";

const LEAST_NOTICE: Duration = Duration::from_secs(1);

impl RawGc {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 5] = [INTERVAL, GRACE, DELETE_UNTAGGED, NOTICE, UPLOAD_IDLE];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            gc_interval: file.one(INTERVAL, self.gc_interval),
            gc_grace: file.one(GRACE, self.gc_grace),
            gc_delete_untagged: file.one(DELETE_UNTAGGED, self.gc_delete_untagged),
            gc_notice: file.one(NOTICE, self.gc_notice),
            upload_idle: file.one(UPLOAD_IDLE, self.upload_idle),
        }
    }

    pub(super) fn read(self, problems: &mut Problems) -> GcPlan {
        let interval = match self.gc_interval.as_deref() {
            Some("never") => None,
            text => Some(duration(INTERVAL, text, GcPlan::DEFAULT_INTERVAL, problems)),
        };
        if interval == Some(Duration::ZERO) {
            problems.add(INTERVAL, "must not be zero: use never to disable collection");
        }
        let mut options = GcOptions::default();
        options.grace = duration(GRACE, self.gc_grace.as_deref(), options.grace, problems);
        options.delete_untagged =
            switch(DELETE_UNTAGGED, self.gc_delete_untagged.as_deref(), options.delete_untagged, problems);
        let notice = duration(NOTICE, self.gc_notice.as_deref(), GcPlan::DEFAULT_NOTICE, problems);
        if notice < LEAST_NOTICE {
            problems.add(NOTICE, format_args!("must be at least {LEAST_NOTICE:?}: shorter than any push"));
        }
        let notice = NoticePeriod::new(notice);
        let upload_idle =
            duration(UPLOAD_IDLE, self.upload_idle.as_deref(), GcPlan::DEFAULT_UPLOAD_IDLE, problems);
        GcPlan { interval, options, notice, upload_idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_no_interval_and_zero_is_a_mistake() {
        for (text, expected) in [
            (None, Some(GcPlan::DEFAULT_INTERVAL)),
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
