//! Controllers over a Kubernetes API: they watch objects, let [`plan`](crate::plan) decide, and carry it out.
//!
//! - [`cached_image`]: every CachedImage is in the cache for as long as it is needed, and its status says the truth.
//! - [`Informer`]: one watch of a kind of objects, for everybody in a process.
//! - [`Usage`]: which pods use an image.
//! - [`EventRecorder`]: where events go.
//!
//! Nothing is spawned behind the caller's back: whatever runs is a future that the caller is given.

pub mod cached_image;
mod event;
mod informer;
mod usage;

pub use event::{Event, EventRecorder, NoEvents};
pub use informer::Informer;
pub use usage::{ImageUsage, MAX_NAMED_PODS, Usage};
