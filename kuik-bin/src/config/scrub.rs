//! Scrub settings: verification of stored content.

use std::{num::NonZeroU64, time::Duration};

use kuik_proxy::stack::ScrubPlan;

use super::{ConfigFile, Problems, quantity::Quantity, value::duration};

/// Unvalidated scrub settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawScrub {
    /// Interval between verifications of all stored content, such as 24h, or never [default: 168h]
    #[arg(long, env = "KUIK_SCRUB_INTERVAL", hide_env_values = true, value_name = "DURATION")]
    pub(super) scrub_interval: Option<String>,
    /// Maximum read rate of the scrub in bytes per second, such as 500k or 10Mi [default: 10Mi]
    #[arg(long, env = "KUIK_SCRUB_RATE", hide_env_values = true, value_name = "SIZE")]
    pub(super) scrub_rate: Option<String>,
}

const INTERVAL: &str = "scrub-interval";
const RATE: &str = "scrub-rate";

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const DEFAULT_RATE: NonZeroU64 = NonZeroU64::MIN.saturating_add((10 << 20) - 1);

impl RawScrub {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 2] = [INTERVAL, RATE];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            scrub_interval: file.one(INTERVAL, self.scrub_interval),
            scrub_rate: file.one(RATE, self.scrub_rate),
        }
    }

    /// Returns `None` if scrubbing is disabled.
    pub(super) fn read(self, problems: &mut Problems) -> Option<ScrubPlan> {
        let rate = match self.scrub_rate.as_deref() {
            None => DEFAULT_RATE,
            Some(text) => {
                let read = problems.check(RATE, text.parse::<Quantity>());
                let rate = read.map(|Quantity(bytes)| NonZeroU64::new(bytes));
                if rate == Some(None) {
                    problems.add(
                        RATE,
                        format_args!("must not be zero: set {INTERVAL} to never to disable scrubbing"),
                    );
                }
                rate.flatten().unwrap_or(DEFAULT_RATE)
            }
        };
        if self.scrub_interval.as_deref() == Some("never") {
            return None;
        }
        let interval = duration(INTERVAL, self.scrub_interval.as_deref(), WEEK, problems);
        Some(ScrubPlan { interval, rate })
    }
}
