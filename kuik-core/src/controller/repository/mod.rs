//! A Repository says how its images are, knows which secrets open it, and has its images checked from time to time.
//!
//! [`plan`](plan()) decides, [`Repositories`] watches and carries it out. A Repository that is as it should be costs no
//! request. Images of a Repository change often while they are pulled: its status follows after a short pause, so that
//! many changes are one write.

mod plan;
#[cfg(test)]
mod plan_tests;
mod reconcile;
mod secrets;

pub(in crate::controller) use plan::interval;
pub use plan::{Finalizer, Happened, Observed, Plan, checks_due, plan};
pub use reconcile::Repositories;
pub(super) use reconcile::{pull_secrets, write_status};
