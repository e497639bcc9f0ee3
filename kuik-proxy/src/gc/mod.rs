//! Online garbage collection: what nothing refers to goes, while the store is pushed to and pulled from.
//!
//! A run marks (`mark`): it walks every repository and builds a graph of digests (`graph`). Tags hold what they
//! point at; unless untagged manifests are to go, every manifest of a repository is held; what is younger than the
//! grace period is held. From there on, indexes hold their manifests, images their blobs, and manifests their
//! referrers. Then it sweeps (`sweep`): unreachable manifests leave their repositories, unreachable bytes are
//! removed, and so are links to bytes that are gone. Each step leaves a store that the next run can begin with.
//!
//! # Why nothing is lost
//!
//! 1. *Written before the run.* Walks show what was there all the time, so the mark sees it. An error in the walk
//!    ends the run before anything is removed; a manifest that is there and cannot be read keeps its whole repository.
//! 2. *Written or asked for during the run, in this process.* All writes go through [`Leased`], which takes a lease
//!    ([`Leases`]) on every digest that the write names, before it begins. The run is told of every lease since it
//!    began, and spares those digests with all that they hold. It asks anew before each removal, while new leases on
//!    the digest being removed wait: so a lease comes either before that question, and the content stays, or after
//!    the removal, and its holder sees that the content is gone. A push that takes a lease
//!    ([`Leases::lease_manifest`]), looks for its blobs, and keeps its manifest under that lease, answers
//!    `MANIFEST_BLOB_UNKNOWN` or keeps the blob; there is no third way.
//! 3. *A lease on an old manifest that is garbage* must also save what that manifest holds. Manifests leave top-down,
//!    and before any bytes: when something is about to go, each manifest that held it has either left, and whoever
//!    names it sees that, or was leased before, and then what it holds is spared.
//!    What keeps one another in a circle leaves together.
//! 4. *Uploads* are no content until they are finished; then their bytes are young. *Reads* under way keep what they
//!    opened: on a file system, removing takes the name alone. A *pull* that has its manifest and not yet its blobs,
//!    and a push that was told that a blob is there and has not yet named it, hold no lease; what was asked for within
//!    the grace period is spared, with what it holds. A pull-through cache fetches again what it does not find.
//! 5. *Other processes* on the same store know nothing of these leases. They tell one another what they remove
//!    (`peers`): a run announces what it found to be garbage (`announced`), nothing without what keeps it; it waits,
//!    marks again, and removes of that what is garbage still. A write looks for announcements before it looks for
//!    content, and waits for one that names what it relies on. So either it sees the announcement, or the second mark
//!    sees what it wrote.

mod announced;
mod collect;
mod graph;
mod leased;
mod leases;
mod mark;
mod peers;
mod published;
mod schedule;
mod service;
mod sweep;
mod underway;

pub(crate) use announced::Until;
pub(crate) use graph::{Key, children};
pub(crate) use leases::Run;
pub(crate) use underway::or_gone;

pub use collect::{Collector, GcError, GcOptions, GcReport};
pub use leased::Leased;
pub use leases::{Lease, Leases};
pub use peers::{Announcements, Notice};
pub use schedule::{GcMetrics, Schedule};
pub use service::GcService;
