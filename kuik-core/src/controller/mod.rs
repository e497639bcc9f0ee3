//! Controllers over a Kubernetes API: they watch objects, let [`plan`](crate::plan) decide, and carry it out.
//!
//! - [`cached_image`]: every CachedImage is in the cache for as long as it is needed, and its status says the truth.
//! - [`Informer`]: one watch of a kind of objects, for everybody in a process.
//! - [`pods`]: which images the pods of the cluster use; [`Usage`] is what others ask of it.
//! - [`KeptImages`]: every image that pods use has its CachedImage and its Repository.
//! - [`repository`]: what a Repository says of its images, and when they are checked again.
//! - [`leader`]: one replica does all this, and writes nothing once another one may.
//! - [`EventRecorder`]: where events go.
//!
//! Nothing is spawned behind the caller's back: whatever runs is a future that the caller is given.

mod accounts;
mod api_events;
pub mod cached_image;
mod connect;
mod controllers;
mod error;
mod event;
mod informer;
mod kept;
pub mod leader;
mod node_platforms;
mod objects;
pub mod pods;
mod pull_secrets;
mod queue;
pub mod rbac;
pub mod repository;
mod token;
mod update_filters;
mod usage;

pub use accounts::SlimAccount;
pub use api_events::ApiEvents;
pub use connect::{NoCluster, connect};
pub use controllers::{Controllers, View};
pub use error::{ApiError, ApiErrorKind};
pub use event::{Event, EventRecorder, NoEvents};
pub use informer::Informer;
pub use kept::KeptImages;
pub use node_platforms::NodePlatforms;
pub use pull_secrets::PullSecrets;
pub use queue::{Outcome, Queue};
pub use token::{NoToken, registry_token};
pub use usage::{ImageUsage, MAX_NAMED_PODS, Usage};

/// As whom kuik writes fields.
const FIELD_MANAGER: &str = "kuik-controller";
