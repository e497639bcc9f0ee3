//! Cloud identity of the machine or pod as a credential for the cloud's registries.
//!
//! A provider returns no credentials for registries outside its cloud, determined by host name, and contacts no service
//! before a registry of its cloud refuses a request. It uses two transports: one for the cloud's services, guarded like
//! any upstream; and one for services that only this machine can reach (metadata servers), which never uses a proxy,
//! and whose addresses no upstream may have.

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
