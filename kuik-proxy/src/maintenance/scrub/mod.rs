//! Scrubbing: slow background verification of all stored content, because disks decay and most layers are rarely
//! read.
//!
//! A pass hashes every blob and manifest (`examine`) at a bounded rate (`throttle`), in the order of digests
//! (`order`), so that an interrupted pass resumes from its position. Bytes that do not match their digest are
//! quarantined ([`RegistryStore::quarantine_blob`](kuik_core::content::RegistryStore::quarantine_blob)): from then on
//! they count as absent, and a pull-through cache fetches them again on the next pull.
//!
//! # Why no intact content is quarantined
//!
//! Bytes that look damaged may have been read during a replacement. So they are verified a second time, while new
//! leases on their digest wait ([`gc::Leases`](crate::maintenance::gc::Leases)): this process does not publish, link
//! or collect them then. Other processes on the same store do not see these leases; in the worst case, intact bytes
//! they published between the second verification and the move are quarantined too.
//!
//! Unreadable bytes are not moved: an operator must check the disk or the bucket first.

mod examine;
mod metrics;
mod order;
mod schedule;
mod scrubber;
mod throttle;

pub use metrics::ScrubMetrics;
pub use schedule::ScrubSchedule;
pub use scrubber::{ScrubReport, Scrubber};
