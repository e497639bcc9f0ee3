//! How a registry verifies what it has stored.

use std::{num::NonZeroU64, time::Duration};

use super::{ConfigFile, Problems, quantity::Quantity, value::duration};

/// How stored content is verified, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawScrub {
    /// From the end of one verification of all that is stored to the beginning of the next, such as 168h; `never`
    /// where nothing is to be verified [default: 168h]
    #[arg(long, env = "KUIK_SCRUB_INTERVAL", hide_env_values = true, value_name = "DURATION")]
    pub(super) scrub_interval: Option<String>,
    /// How many bytes a second it reads at most: 500k, 10Mi [default: 10Mi]
    #[arg(long, env = "KUIK_SCRUB_RATE", hide_env_values = true, value_name = "SIZE")]
    pub(super) scrub_rate: Option<String>,
}

/// How stored content is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubConfig {
    /// From the end of one pass to the beginning of the next.
    pub interval: Duration,
    /// At most so many bytes a second.
    pub rate: NonZeroU64,
}

const INTERVAL: &str = "scrub-interval";
const RATE: &str = "scrub-rate";

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const DEFAULT_RATE: NonZeroU64 = NonZeroU64::MIN.saturating_add((10 << 20) - 1);

impl RawScrub {
    /// The settings that a file can have.
    pub(super) const KEYS: [&str; 2] = [INTERVAL, RATE];

    /// What was given here, and for the rest what the file says.
    pub(super) fn over(self, file: &ConfigFile) -> Self {
        Self {
            scrub_interval: file.one(INTERVAL, self.scrub_interval),
            scrub_rate: file.one(RATE, self.scrub_rate),
        }
    }

    /// `None` where nothing is to be verified.
    pub(super) fn read(self, problems: &mut Problems) -> Option<ScrubConfig> {
        let rate = match self.scrub_rate.as_deref() {
            None => DEFAULT_RATE,
            Some(text) => {
                let read = problems.check(RATE, text.parse::<Quantity>());
                let rate = read.map(|Quantity(bytes)| NonZeroU64::new(bytes));
                if rate == Some(None) {
                    problems.add(RATE, "at no rate nothing is ever verified: write never for the interval");
                }
                rate.flatten().unwrap_or(DEFAULT_RATE)
            }
        };
        if self.scrub_interval.as_deref() == Some("never") {
            return None;
        }
        let interval = duration(INTERVAL, self.scrub_interval.as_deref(), WEEK, problems);
        Some(ScrubConfig { interval, rate })
    }
}
