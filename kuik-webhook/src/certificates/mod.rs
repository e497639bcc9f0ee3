//! Certificate management of the webhook: a CA and a serving certificate in a Secret that all replicas share, and the
//! `caBundle` of the webhook configuration, by which API servers trust it. An alternative to cert-manager.
//!
//! - [`plan`]: what to do now, as a pure function of the observed state and the time.
//! - [`issue`]: issues CAs and certificates.
//! - [`Rotator`]: observes, plans and executes in a loop; any number of replicas can run one.
//! - [`CertificateStore`]: storage; [`KubernetesStore`] is the one in a cluster.
//!
//! Invariant: no certificate is served before API servers trust it. A new CA is added to the trusted ones before it signs;
//! the old one stays trusted until it has expired. Every write includes the observed resource version, so that one of
//! several replicas writes, and the others use the result.

mod certificate;
mod issue;
mod kubernetes;
mod plan;
mod rotator;
mod secret;
mod store;

pub use certificate::{Certificate, InvalidCertificate};
pub use issue::{CertificateSpec, IssueError, Lifetimes, issue};
pub use kubernetes::{KubernetesStore, ObjectNames};
pub use plan::{RotationPlan, plan};
pub use rotator::{RotationError, Rotator};
pub use secret::{CertificateSecret, KeyPair};
pub use store::{CertificateStore, Observed, StoreError, Version, Written};
