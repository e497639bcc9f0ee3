//! Online mark-and-sweep garbage collection: unreferenced content is removed while the store serves pushes and pulls.
//!
//! A run first marks (`mark`): it walks every repository and builds a graph of digests (`graph`). Roots are the
//! targets of tags, every manifest of a repository unless untagged manifests are deleted, and everything younger than
//! the grace period. Indexes keep their manifests, images their blobs, and manifests their referrers. Then it sweeps
//! (`sweep`): unreachable manifests are removed from their repositories, then unreachable bytes, then links to
//! missing bytes. Each step leaves a store from which the next run can start.
//!
//! # Why nothing is lost
//!
//! 1. *Written before the run.* Walks return everything that existed throughout, so the mark sees it. An error in the
//!    walk ends the run before anything is removed; an unreadable manifest keeps its whole repository.
//! 2. *Written or requested during the run, in this process.* All writes go through [`LeasedStore`], which takes a
//!    lease ([`Leases`]) on every digest that the write names, before it begins. The run receives every lease since
//!    it began, and keeps those digests and everything reachable from them. It checks again before each removal,
//!    while new leases on that digest wait: a lease comes either before the check, and the content stays, or after
//!    the removal, and its holder finds that the content is gone. A push takes a lease ([`Leases::lease_manifest`]),
//!    checks for its blobs, and stores its manifest under that lease: it either returns `MANIFEST_BLOB_UNKNOWN` or
//!    keeps the blob.
//! 3. *A lease on an old, unreferenced manifest* must also protect its references. Manifests are removed top-down,
//!    and before any bytes: when something is about to be removed, each manifest that referred to it is either gone,
//!    and a client that names it finds that, or was leased before, and then its references are kept. Members of a
//!    cycle are removed together.
//! 4. *Uploads* are not content until they are finished; then their bytes are young. Open *reads* keep what they
//!    opened: on a file system, removal only unlinks the name. A *pull* between its manifest and its blobs, and a
//!    push between its check for a blob and its manifest, hold no lease; content requested within the grace period is
//!    kept, with its references. A pull-through cache fetches missing content again.
//! 5. *Other processes* on the same store do not see these leases. They announce removals to each other
//!    (`peer_intents`): a run announces the garbage it found (`removal_intent`), always together with its referrers;
//!    it waits, marks again, and removes what is still garbage. A write looks for announcements before it looks for
//!    content, and waits for one that names a digest it relies on. So either the write sees the announcement, or the
//!    second mark sees the write.

mod collect;
mod concurrent_deletes;
mod graph;
mod guarded_write;
mod leased_store;
mod leases;
mod mark;
mod peer_intents;
mod removal_intent;
mod schedule;
mod service;
mod sweep;

pub(crate) use concurrent_deletes::or_gone;
pub(crate) use graph::{Key, children};
pub(crate) use leases::Run;
pub(crate) use removal_intent::Deadline;

pub use collect::{Collector, GcError, GcOptions, GcReport};
pub use leased_store::LeasedStore;
pub use leases::{Lease, Leases};
pub use peer_intents::{NoticePeriod, RemovalIntents};
pub use schedule::{GcMetrics, Schedule};
pub use service::{GcLayer, GcService};
