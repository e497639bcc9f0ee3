//! The webhook's certificate, where nobody else makes one: an authority and a serving certificate in a Secret that all
//! replicas share, and the `caBundle` of the webhook's configuration, by which API servers trust it.
//!
//! - [`plan`]: what has to be done now, as a pure function of what was observed and the time.
//! - [`issue`]: makes authorities and certificates.
//! - [`Keeper`]: observes, plans, does, again and again; any number of replicas may.
//! - [`CertificateStore`]: where all of it is kept; [`KubernetesStore`] keeps it in a cluster.
//!
//! Invariant: no certificate is served that API servers do not trust yet. A new authority is first added to what they
//! trust, and only then signs; the old one stays among them until it has expired. Every write names the version that it
//! was decided on, so that of several replicas one writes, and the others find what it has written.

mod certificate;
mod issue;
mod keeper;
mod kubernetes;
mod material;
mod plan;
mod store;

pub use certificate::{Certificate, InvalidCertificate};
pub use issue::{CannotIssue, Lifetimes, issue};
pub use keeper::{KeepError, Keeper};
pub use kubernetes::{KubernetesStore, Place};
pub use material::{KeyPair, Material};
pub use plan::{Needs, plan};
pub use store::{CertificateStore, Observed, StoreError, Version, Written};
