//! Progress of a running pull: counters that the copier advances and plans read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{controller::cached_image::plan::Transfer, copy::Progress};

/// Bytes of one pull.
#[derive(Debug, Default)]
pub(super) struct Transferred {
    done: AtomicU64,
    total: AtomicU64,
}

impl Transferred {
    /// Returns the progress, once the size is known.
    pub(super) fn get(&self) -> Option<Transfer> {
        let total = self.total.load(Ordering::Relaxed);
        // A registry may send more than it announced.
        let done = self.done.load(Ordering::Relaxed).min(total);
        (total > 0).then_some(Transfer { done, total })
    }
}

impl Progress for Transferred {
    fn expects(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advances(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}
