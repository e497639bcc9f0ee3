//! A bound on what a store keeps: what is needed least goes before the space runs out.
//!
//! - [`Limited`] is a store that counts what is written and removed ([`Usage`]), and refuses what is too much with the
//!   error of a full disk. A push is then answered `507`; a pull-through cache passes on to its readers what it cannot
//!   keep, and the pull goes on.
//! - [`Quota`] runs beside it. It counts the store at its start and then at intervals, because another process may
//!   write to the same bucket, and evicts when it gets full: garbage first, then images that are marked as expired,
//!   then those that were pulled least recently (`choose`), and never what is pinned ([`Mark`]).
//! - [`Recorded`] is a source that remembers when an image was last pulled ([`Pulls`]).
//! - [`MarksService`] is how controllers set marks.
//!
//! Eviction begins at 95 % of the limit and ends at 90 %. An image goes as one: its tags, its manifests, and of its
//! blobs those that no other image needs. What goes is decided again under the collector's leases, so whatever is
//! pushed or linked meanwhile stays.
//!
//! The size is that of content: links, directories and what is in the quarantine come on top of it. Of several
//! processes on one store each knows what the others write when it counts again; between two counts they can exceed
//! the limit together by as much as they write in that time.

mod choose;
mod evict;
mod inventory;
mod limited;
mod mark;
mod metrics;
mod pulls;
mod recorded;
mod service;
mod tally;
mod unlink;
mod usage;

pub use evict::Quota;
pub use limited::Limited;
pub use mark::{Mark, Marks};
pub use metrics::QuotaMetrics;
pub use pulls::Pulls;
pub use recorded::Recorded;
pub use service::MarksService;
pub use usage::Usage;
