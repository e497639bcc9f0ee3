//! Retention documents: what each cluster that uses the store says about its images.
//!
//! - [`RetentionIndex`] keeps the documents in the store, so that they survive a restart and are shared by all
//!   processes on it, and answers from memory: whether a tag is managed by a cluster, and how needed an image is
//!   ([`Standing`]).
//! - [`RetentionLayer`] is the HTTP endpoint: `PUT`, `GET`, `HEAD` and `DELETE /kuik/v1/retention/<cluster ID>`. It also
//!   refuses to delete a tag for one cluster while another one needs it.
//!
//! A document counts until its cluster has not renewed it for the lapse period. Nothing is evicted for lack of
//! knowledge: until the documents have been read, and as long as one of them is damaged, every image counts as needed.
//! Clocks may jump: see [`SteadyClock`].

mod clock;
mod cluster;
mod documents;
#[cfg(test)]
mod fallible_store;
mod index;
mod metrics;
mod service;

pub use clock::SteadyClock;
pub use index::{RejectedDocument, RetentionIndex, RetentionOptions, Standing};
pub use metrics::RetentionMetrics;
pub use service::{RetentionLayer, RetentionService};
