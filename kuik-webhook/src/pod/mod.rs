//! Every place of a pod spec that names an image, and what a policy decides about it.
//!
//! A pod spec is looked at as plain JSON and never decoded into a type of ours, so a field that this build has never
//! heard of cannot be lost. The functions here only read: each [`ImageSite`] carries the JSON pointer of the string
//! that holds its image, and whoever edits (an admission patch, a manifest on disk) does so at that pointer alone.
//!
//! Invariant: no pod, however malformed, makes these functions panic or change anything. What has not the shape that
//! Kubernetes demands is left alone and reported as [`Skipped`].

mod decide;
mod opt_out;
mod site;
mod walk;

pub use decide::{Decided, PodDecisions, decide};
pub use opt_out::{OPT_OUT_LABEL, OPT_OUT_VALUE, OptedOut, opts_out};
pub use site::{ImageSite, Problem, SiteKind, Skipped};
pub use walk::{PodImages, walk};
