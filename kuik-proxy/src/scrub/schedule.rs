//! Passes at intervals. The binary spawns the future; nothing here spawns.

use std::time::{Duration, SystemTime};

use super::Scrubber;

/// A process that starts has better things to do first.
const FIRST: Duration = Duration::from_secs(60);

/// After an error, the rest of a pass waits so long at most.
const RETRY: Duration = Duration::from_secs(600);

/// Passes at intervals.
#[derive(Debug)]
pub struct ScrubSchedule {
    /// What scrubs.
    pub scrubber: Scrubber,
    /// From the end of one pass to the beginning of the next. The first begins after a minute, where this is longer.
    pub interval: Duration,
}

impl ScrubSchedule {
    /// Runs for as long as the future is polled. A pass that fails is logged, and goes on later from where it was.
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
                        "everything that is stored was verified"
                    );
                    self.interval
                }
                Err(error) => {
                    metrics.interrupted.inc();
                    tracing::warn!(error = error.chain(), "a scrub was cut off, and goes on later");
                    self.interval.min(RETRY)
                }
            };
        }
    }
}
