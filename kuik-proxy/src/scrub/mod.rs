//! Slow background verification of all that is stored: disks rot, and nobody reads most of an image for months.
//!
//! A pass hashes every blob and manifest (`examine`) at a bounded rate (`pace`), in the order of their digests
//! (`order`), so that a pass which is cut off goes on where it was. Bytes that do not have the digest that they are
//! kept under are set aside ([`ManagedStore::quarantine_blob`](kuik_core::content::ManagedStore::quarantine_blob)):
//! from then on they are as good as absent, and a pull-through cache fetches them again on the next pull.
//!
//! # Why nothing good is set aside
//!
//! Bytes that look damaged may have been caught while they were replaced. So they are examined a second time, while
//! new leases on their digest wait ([`gc::Leases`](crate::gc::Leases)): nobody of this process publishes, links or
//! collects them then. Other processes on the same store know nothing of that; the worst that they can meet is that
//! good bytes which they published between the second look and the move are set aside with the bad.
//!
//! Bytes that cannot be read at all stay where they are: an operator has to look at the disk or the bucket first.

mod examine;
mod metrics;
mod order;
mod pace;
mod schedule;
mod scrubber;

pub use metrics::ScrubMetrics;
pub use schedule::ScrubSchedule;
pub use scrubber::{ScrubReport, Scrubber};
