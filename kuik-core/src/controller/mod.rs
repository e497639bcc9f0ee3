//! Kubernetes controllers: they watch objects, compute a plan and carry it out.
//!
//! - [`cached_image`]: keeps every CachedImage in the cache as long as it is needed, and its status accurate.
//! - [`Informer`]: one shared watch per kind of object.
//! - [`pods`]: which images the pods of the cluster use, queried through [`Usage`].
//! - [`PodImageController`]: creates the CachedImage and the Repository of every image that pods use.
//! - [`repository`]: aggregates the status of a Repository and schedules its update checks.
//! - [`retention`]: tells the cache which images the cluster uses.
//! - [`leader`]: leader election: one replica runs the controllers, and stops writing before another one may start.
//! - [`EventRecorder`]: sink for Kubernetes events.
//!
//! Nothing is spawned implicitly: everything that runs is a future returned to the caller.

pub mod cached_image;
pub mod leader;
mod manager;
mod node_platforms;
pub mod pods;
mod registry_token;
pub mod repository;
pub mod retention;
pub(crate) mod runtime;

pub use manager::{Manager, View};
pub use node_platforms::NodePlatforms;
pub use pods::controller::PodImageController;
pub use pods::service_accounts::SlimAccount;
pub use pods::usage::{ImageUsage, MAX_NAMED_PODS, Usage};
pub use registry_token::{NoToken, RegistryToken, registry_token};
pub use repository::credentials::PullSecrets;
pub use runtime::connect::{NoCluster, connect};
pub use runtime::error::{ApiError, ApiErrorKind};
pub use runtime::event::{Event, EventRecorder, NoEvents};
pub use runtime::events::ApiEvents;
pub use runtime::informer::Informer;
pub use runtime::work_queue::{Outcome, WorkQueue};

/// Field manager of all writes.
const FIELD_MANAGER: &str = "kuik-controller";
