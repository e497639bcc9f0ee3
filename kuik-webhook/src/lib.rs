//! Rewrites the images of pods: now as pure functions over a pod, later as an admission webhook too.
//!
//! - [`pod`]: finds every place of a pod spec that names an image, and asks a policy about each of them.
//!
//! The admission service (a review in, a JSON Patch out) and its certificates will live here; the patch is made from
//! what [`pod::decide`] returns, so that only the fields that change are ever touched.

pub mod pod;
