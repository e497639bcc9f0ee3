//! Options of the CachedImage controller.

use std::time::Duration;

/// Options of the CachedImage controller. The defaults are those of the binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How long an unused image is kept: 30 days.
    pub expiry_delay: Duration,
    /// Number of concurrent copies (`--max-concurrent-cached-image-reconciles`): 3.
    pub max_concurrent_copies: usize,
    /// How often the status is verified against the cache: 50 s.
    pub verify_interval: Duration,
    /// A copy that takes longer than this is reported in the status while it runs: 1 s. A quicker one costs one write
    /// to the API server, not two.
    pub show_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            expiry_delay: Duration::from_secs(30 * 24 * 3600),
            max_concurrent_copies: 3,
            verify_interval: Duration::from_secs(50),
            show_after: Duration::from_secs(1),
        }
    }
}
