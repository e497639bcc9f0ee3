//! The OCI distribution API as tower services: a pull-through cache that fetches each byte once.
//!
//! Three pieces, composed as a deployment needs them:
//! - [`store::FilesystemStore`] keeps content;
//! - [`pull_through::PullThrough`] is a source over a store and an upstream: it fetches what is missing, once;
//! - [`service::ProxyService`] speaks HTTP over any source, and [`server`] serves it.
//!
//! A fourth puts sources in a row: [`chain`] asks a cache's replicas first and the origin next.
//!
//! Two more make a complete registry of a store, and three keep it small and sound:
//! - [`push::RegistryService`] takes what is pushed and deleted, and leaves pulls to a `ProxyService`;
//! - [`access::AccessLayer`] decides who may;
//! - [`gc`] gives back the space of what nothing refers to, while all of this serves;
//! - [`quota`] bounds what is kept, and evicts what is needed least;
//! - [`scrub`] verifies what is stored, and sets aside what is damaged.
//!
//! [`route`] is the pure part in front: a request's path and query, and what they ask for.

pub mod access;
pub mod admin;
pub mod chain;
mod fill;
pub mod gc;
pub mod pull_through;
pub mod push;
pub mod quota;
pub mod route;
pub mod scrub;
pub mod server;
pub mod service;
pub mod store;
pub mod trace;
