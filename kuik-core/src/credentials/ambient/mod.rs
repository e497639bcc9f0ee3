//! What the machine or the pod is in its cloud, as a credential for the cloud's own registries.
//!
//! A provider has nothing to say about registries that are not its cloud's, by their names, and contacts nobody before
//! one of those refuses. Two transports carry its requests: one for the services of the cloud, guarded like any
//! upstream; and one for what only this machine can reach (metadata servers), which never goes through a proxy, and
//! whose addresses no upstream may have.

#[cfg(feature = "azure")]
mod azure;
mod call;
#[cfg(feature = "ecr")]
mod ecr;
#[cfg(feature = "google")]
mod google;
mod setting;

#[cfg(feature = "azure")]
pub use azure::AzureIdentity;
#[cfg(feature = "ecr")]
pub use ecr::EcrIdentity;
#[cfg(feature = "google")]
pub use google::GoogleIdentity;
