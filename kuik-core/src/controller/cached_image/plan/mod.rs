//! Reconcile plan of one CachedImage: a pure function of the observed state and the time.
//!
//! [`plan`] takes all relevant state ([`Observed`]) and returns the next [`Step`]s, in order. It does no I/O and has no
//! clock and no Kubernetes client: the result depends only on its arguments. It runs again whenever anything changes.
//! The code that executes the steps makes no decisions.
//!
//! Long work (a pull, a verification of the cache) is a background [`Job`]: a plan starts it, sees it running, and
//! receives its [`Outcome`] once. So an object that is edited or deleted during a pull is planned at once.

mod apply_outcome;
mod backoff;
mod debounce;
mod expiry;
mod identity;
mod job;
mod naming;
mod observed;
mod outcome;
mod removal;
mod status;
mod step;
pub(crate) mod time;
mod try_now;

pub use backoff::{Backoff, delay, full_delay};
pub use naming::{Holder, Naming, name_of};
pub use observed::{
    JobResult, Memory, NotKept, Observed, OwnedMetadata, PodUsage, Refresh, RepositoryState, Running,
    Settings, Siblings, Transfer,
};
pub use outcome::{Failure, Outcome};
pub use status::{Readiness, Status};
pub use step::{EventKind, Job, Step};

use jiff::Timestamp;

use self::time::earliest;

/// Returns the next steps for a CachedImage.
///
/// The steps are carried out in order. If one fails, the rest is skipped and the next plan starts from the state
/// observed then. An empty plan means that the object is in its desired state until something changes.
#[must_use]
pub fn plan(observed: &Observed, now: Timestamp) -> Vec<Step> {
    if observed.deleting {
        return removal::plan(observed, now);
    }
    match &observed.naming {
        Naming::Wrong { right } => return identity::rename(observed, right),
        Naming::Duplicate => return identity::delete_duplicate(observed),
        Naming::Invalid { .. } | Naming::Right => {}
    }
    let mut steps = Vec::new();
    let expiry = expiry::plan(observed, now);
    if let expiry::Expiry::Expired = expiry {
        steps.extend(identity::leave(observed));
        steps.push(Step::Expire);
        return steps;
    }
    steps.extend(identity::adopt(observed));
    let mut wake = None;
    match expiry {
        expiry::Expiry::Set(at) => {
            steps.push(Step::SetExpiry(at));
            wake = earliest(wake, at);
        }
        expiry::Expiry::Unchanged(at) => wake = earliest(wake, at),
        expiry::Expiry::Expired => {}
    }
    let work = job::plan(observed, now);
    steps.extend(work.before);
    if work.status != observed.status {
        steps.push(Step::SetStatus(Box::new(work.status)));
    }
    steps.extend(work.after);
    wake = earliest(wake, work.wake);
    steps.extend(wake.map(Step::WakeAt));
    steps
}
