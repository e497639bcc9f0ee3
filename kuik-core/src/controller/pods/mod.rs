//! From pods to the images that they use: what is kept of a pod, which of its images are kept, and who uses which.
mod index;
mod rules;
mod slim;
mod tracker;

pub use index::{Changes, PodIndex, SecretSource};
pub use rules::{PodRules, WantedImage};
pub use slim::{PodImage, SlimPod};
pub use tracker::{PodChange, PodTracker};
