//! Image usage by pods: slim pod objects, selection of the images to cache, and the usage index.
pub(super) mod controller;
mod index;
mod rules;
pub(super) mod service_accounts;
mod slim;
mod tracker;
pub(super) mod usage;
mod wanted;

pub use index::{Changes, PodIndex, SecretSource};
pub use rules::{PodRules, WantedImage};
pub use slim::{PodImage, SlimPod};
pub use tracker::{PodChange, PodTracker};
pub use wanted::{PodImages, WantedImages};
