//! Retention reports: tells the cache which images the cluster uses, so that it evicts nothing that pods need.
//!
//! [`RetentionReporter`] is run by the leader. It builds the cluster's
//! [`RetentionDocument`](crate::retention::RetentionDocument) from the CachedImages and the usage of their images, and
//! sends it whenever it differs from what the cache has acknowledged. While nothing changes, it sends only a `HEAD` at
//! intervals, which finds a document that the cache has lost, and renews the document once a day.
//!
//! [`ReportingCopier`] copies an image only after it is in the cache's document, so that it is not evicted at once.

mod cluster_id;
mod copier;
mod document;
mod reporter;

pub use cluster_id::{ClusterIdError, cluster_id};
pub use copier::ReportingCopier;
pub use reporter::{RetentionReporter, RetentionSink, Timing};
