//! Images of a pod spec, and their rewriting by a policy.
//!
//! A pod spec is processed as plain JSON and never decoded into a type, so unknown fields are never lost. The functions
//! here only read: each [`PodImage`] has the JSON pointer of the string that holds its image, and callers (an admission
//! patch, a manifest editor) change only that string.
//!
//! Invariant: no pod, however malformed, makes these functions panic. Parts without the shape that Kubernetes requires
//! are skipped and reported as [`Skipped`].

mod context;
mod decide;
mod image;
mod opt_out;
mod walk;

pub use context::PodMetadata;
pub use decide::{Decided, PodDecisions, decide};
pub use image::{ImageField, PodImage, Problem, Skipped};
pub use opt_out::{KeepAll, OPT_OUT_LABEL, OPT_OUT_VALUE, opts_out};
pub use walk::{PodImages, walk};
