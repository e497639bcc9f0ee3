//! Size limit of a store, with eviction of images that no cluster needs, and expiry of unmanaged images.
//!
//! - [`QuotaStore`] is a store decorator that counts writes and removals ([`Usage`]), and refuses writes over the
//!   limit with the error of a full disk. A push then gets `507`; a pull-through cache streams content to its clients
//!   without storing it, and the pull succeeds.
//! - [`Quota`] runs alongside. It counts the store at startup and then at intervals, because another process may
//!   write to the same bucket. When the store is nearly full it evicts: garbage first, then images that no cluster
//!   manages and that were not pulled recently, expired and unused ones (`eviction_order`). It never evicts what is in
//!   use or retained in a cluster ([`RetentionIndex`](crate::maintenance::retention::RetentionIndex)).
//! - Images that no cluster manages expire when they have not been pulled for a while ([`UnmanagedExpiry`]).
//! - [`PullRecorder`] is a source decorator that records the time of each pull ([`Pulls`]); [`PushRecorder`] is a
//!   store decorator that records repositories that clients push to.
//! - [`CapacityService`] is the HTTP endpoint through which clients ask whether the store has room, before they fetch
//!   anything through it.
//!
//! Eviction begins at 95 % of the limit and ends at 90 %. An image is evicted as a whole: its tags, its manifests,
//! and the blobs that no other image needs. Each removal is decided again under the collector's leases, so content
//! pushed or linked meanwhile is kept.
//!
//! The size is that of content: links, directories and the quarantine come on top. If several processes share a
//! store, each learns about the writes of the others at its next count; between two counts they can exceed the limit
//! together by as much as they write in that time.

mod capacity;
mod evict;
mod eviction_order;
mod expire;
mod inventory;
mod metrics;
mod pull_recorder;
mod pulls;
mod push_recorder;
mod quota_store;
mod recount;
mod unlink;
mod usage;

pub use capacity::{CapacityLayer, CapacityService};
pub use evict::Quota;
pub use expire::UnmanagedExpiry;
pub use metrics::QuotaMetrics;
pub use pull_recorder::PullRecorder;
pub use pulls::Pulls;
pub use push_recorder::PushRecorder;
pub use quota_store::QuotaStore;
pub use usage::Usage;
