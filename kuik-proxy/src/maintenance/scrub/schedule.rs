//! Scheduled scrub passes. The binary spawns the future; this module spawns nothing.

use std::time::{Duration, SystemTime};

use super::Scrubber;

/// Delay of the first pass, so that it does not compete with startup.
const FIRST: Duration = Duration::from_secs(60);

/// Maximum delay before an interrupted pass resumes.
const RETRY: Duration = Duration::from_secs(600);

/// Scrub passes at intervals.
#[derive(Debug)]
pub struct ScrubSchedule {
    /// Scrubber to run.
    pub scrubber: Scrubber,
    /// From the end of one pass to the beginning of the next. The first begins after at most one minute.
    pub interval: Duration,
}

impl ScrubSchedule {
    /// Runs for as long as the future is polled. A failed pass is logged, and resumed later.
    pub async fn run(self) -> ! {
        let metrics = self.scrubber.metrics();
        let mut wait = self.interval.min(FIRST);
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.scrubber.pass().await {
                Ok(report) => {
                    metrics.passes.inc();
                    metrics.last_duration.set(report.took.as_secs_f64());
                    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    metrics.last_end.set(now.as_secs_f64());
                    tracing::info!(
                        intact = report.intact,
                        damaged = report.damaged,
                        unreadable = report.unreadable,
                        bytes = report.bytes,
                        took = ?report.took,
                        "scrub pass completed"
                    );
                    self.interval
                }
                Err(error) => {
                    metrics.interrupted.inc();
                    tracing::warn!(error = error.chain(), "scrub pass interrupted, resuming later");
                    self.interval.min(RETRY)
                }
            };
        }
    }
}
