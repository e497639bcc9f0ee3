//! A fill assembled from the real modules: progress, window, readers, spool, backpressure.
#![allow(dead_code, unused_imports, reason = "the real files have more than is modeled")]

use std::sync::{Arc, OnceLock};

use kuik_core::{
    content::{BlobSpool, ContentSource, Digest},
    reference::RepositoryName,
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::{
    progress::{Phase, Progress},
    range_prefetch::RangePrefetch,
    window::{Position, Window},
};

#[path = "../../../src/fill/backpressure.rs"]
pub(crate) mod backpressure;
mod explore;
mod parts;
#[path = "../../../src/fill/progress.rs"]
pub(crate) mod progress;
#[path = "../../../src/fill/reader.rs"]
pub(crate) mod reader;
#[path = "../../../src/fill/spool.rs"]
pub(crate) mod spool;
#[path = "../../../src/fill/window.rs"]
pub(crate) mod window;

/// Range prefetch is not modeled: no range here is that far ahead.
pub(crate) mod range_prefetch {
    use std::{ops::Range, sync::Arc};

    use bytes::Bytes;
    use kuik_core::{
        content::{ContentSource, Digest},
        reference::RepositoryName,
    };
    use tokio_util::task::TaskTracker;

    #[derive(Debug, Default)]
    pub(crate) struct RangePrefetch;

    pub(crate) struct Upstream<'a> {
        pub source: &'a Arc<dyn ContentSource>,
        pub repository: &'a RepositoryName,
        pub digest: &'a Digest,
        pub held_from: u64,
        pub tasks: &'a TaskTracker,
    }

    pub(crate) fn is_for(_: &Range<u64>, _: u64, _: u64) -> bool {
        false
    }

    impl RangePrefetch {
        pub(crate) async fn read(&self, _: &Upstream<'_>, _: u64) -> Option<Bytes> {
            None
        }
    }
}

struct Fill {
    fetched_from: RepositoryName,
    digest: Digest,
    upstream: Arc<dyn ContentSource>,
    tasks: TaskTracker,
    progress: watch::Sender<Progress>,
    prefetch: RangePrefetch,
    spool: OnceLock<Arc<dyn BlobSpool>>,
    window: Arc<Window>,
    overflow: watch::Sender<bool>,
}

impl Fill {
    fn new(upstream: Arc<dyn ContentSource>) -> Self {
        Self {
            fetched_from: RepositoryName::new("registry.example", "app").unwrap(),
            digest: Digest::sha256(b""),
            upstream,
            tasks: TaskTracker::new(),
            progress: watch::Sender::new(Progress::new()),
            prefetch: RangePrefetch,
            spool: OnceLock::new(),
            window: Arc::default(),
            overflow: watch::Sender::new(false),
        }
    }

    fn overflow(&self) {
        self.overflow.send_replace(true);
        self.window.has_spooled();
    }

    fn is_overflowing(&self) -> bool {
        *self.overflow.borrow()
    }

    fn enter(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    fn reader(&self) -> Position {
        self.window.reader_at(0)
    }
}
