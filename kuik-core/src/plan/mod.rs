//! What is to be done about one CachedImage: a pure function of what is seen and of the time.
//!
//! [`plan`] is given everything that matters ([`Observed`]) and says what to do next ([`Step`]), in order. It does no
//! I/O, knows no clock and no Kubernetes client, and is asked again whenever anything changes: what it says depends on
//! nothing but its arguments. Whoever carries its steps out does not decide.
//!
//! Long work (a pull, a look into the cache) is a [`Job`] that goes on beside: a plan starts it, sees it running, and is
//! told its [`Outcome`] once. So an object that is edited or deleted while its image is being pulled is planned for at
//! once.

mod account;
mod backoff;
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
mod usage;

pub use backoff::{Backoff, delay};
pub use naming::{Holder, Naming, name_of};
pub use observed::{
    Ended, Facts, Memory, Observed, Others, Refresh, RepositoryFacts, Running, Settings, Used,
};
pub use outcome::{Failure, Outcome};
pub use status::{Readiness, Status};
pub use step::{Job, Occasion, Step};

use jiff::Timestamp;

use self::time::earliest;

/// What is to be done now about a CachedImage.
///
/// The steps are carried out in order, and where one fails the rest is left: the next plan begins with what is then
/// seen. An empty plan means that everything is as it should be until something changes.
#[must_use]
pub fn plan(observed: &Observed, now: Timestamp) -> Vec<Step> {
    if observed.deleting {
        return removal::plan(observed, now);
    }
    match &observed.naming {
        Naming::Wrong { right } => return identity::rename(observed, right),
        Naming::Duplicate => return identity::give_way(observed),
        Naming::Invalid { .. } | Naming::Right => {}
    }
    let mut steps = Vec::new();
    let expiry = expiry::plan(observed, now);
    if let expiry::Expiry::Over = expiry {
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
        expiry::Expiry::Kept(at) => wake = earliest(wake, at),
        expiry::Expiry::Over => {}
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
