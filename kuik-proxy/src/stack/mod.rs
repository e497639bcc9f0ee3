//! Assemblies: a pull-through cache, a complete registry, and a node proxy, from plain options to a tower service.
//!
//! The binaries and embedders call the same functions. Each returns a service that [`serve`](crate::serve::serve)
//! takes, or any other HTTP/1.1 server; nothing is spawned here, so background work is handed out as futures.
//!
//! - [`pull_through_cache`]: one store in front of other registries; [`maintained_cache`] with [`StoreMaintenance`].
//! - [`registry()`]: a store with pushes, deletes, access control and [`StoreMaintenance`]; with [`Origins`], a
//!   pull-through cache as well.
//! - [`node_proxy`]: cache replicas first, then the origin registry; it stores nothing.
//!
//! Every stack reads from the outside in: health checks and metrics, request log, access control, maintenance
//! endpoints, content.

mod frontend;
mod http_replica;
mod maintenance;
mod node_proxy;
mod origin;
mod pull_through;
mod registry;

pub use frontend::{Frontend, Writable, admin};
pub use http_replica::HttpReplicas;
pub use maintenance::{GcPlan, MaintenanceOptions, RetentionLapse, ScrubPlan, Storage, StoreMaintenance};
pub use node_proxy::{NodeProxy, node_proxy};
pub use origin::{OriginOptions, origin_client};
pub use pull_through::{PullThroughCache, maintained_cache, pull_through_cache};
pub use registry::{Origins, Registry, registry};
