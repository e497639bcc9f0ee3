//! How CachedImages are looked after.

use std::time::Duration;

/// How CachedImages are looked after. The defaults are those of the binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How long an image stays that no pod uses: 30 days.
    pub expiry_delay: Duration,
    /// How many images are put into the cache at a time (`--max-concurrent-cached-image-reconciles`): 3.
    pub max_concurrent_copies: usize,
    /// How often what status says is checked against the cache: 50 s.
    pub verify_interval: Duration,
    /// A copy that takes longer than this is shown in status while it goes on: 1 s. One that is quicker costs one
    /// write to the API server, not two.
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
