//! Repository controller: aggregates the status of images, tracks pull secrets, and schedules update checks.
//!
//! [`plan`](plan()) decides; [`RepositoryController`] watches and carries out the plan. A Repository in its desired
//! state costs no request. Images change often while they are pulled, so the status is debounced: many changes are one
//! write.

pub(super) mod credentials;
mod plan;
#[cfg(test)]
mod plan_tests;
mod reconcile;
mod secrets;
pub(super) mod update_filters;

pub(in crate::controller) use plan::interval;
pub use plan::{Finalizer, Happened, Observed, Plan, checks_due, plan};
pub use reconcile::RepositoryController;
pub(super) use reconcile::{pull_secrets, write_status};
