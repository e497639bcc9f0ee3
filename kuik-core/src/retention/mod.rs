//! Retention: what a cluster tells its cache about the images it uses.
//!
//! A cluster describes its images in one [`RetentionDocument`], which its controllers send to the cache and the cache
//! keeps: `PUT`, `GET`, `HEAD` and `DELETE` at [`RETENTION_PATH`] followed by the [`ClusterId`]. The `ETag` of the
//! document is its SHA-256 digest ([`RetentionDocument::to_json`] is deterministic), so that both sides can compare
//! what they have without sending it.
//!
//! The cache then evicts nothing that is in use or retained in any cluster, and keeps a tag when one cluster deletes
//! it (request header [`CLUSTER_HEADER`]) while another one still has it in its document: it responds with status 409
//! and the error code [`TAG_RETAINED`].
//!
//! These types have no dependency on Kubernetes: any client of a cache may send documents.

mod cluster_id;
mod document;

pub use cluster_id::{ClusterId, InvalidClusterId};
pub use document::{
    ImageRetention, InvalidDocument, MAX_DOCUMENT_BYTES, RetentionDocument, RetentionState, etag,
};

/// Path prefix of the endpoint; the cluster ID follows.
pub const RETENTION_PATH: &str = "/kuik/v1/retention/";

/// Request header that names the cluster which deletes a tag.
pub const CLUSTER_HEADER: &str = "kuik-cluster";

/// Request header that names the image for which a cache is to make room, as `REPOSITORY:TAG`: none is evicted for an image
/// that no cluster needs.
pub const IMAGE_HEADER: &str = "kuik-image";

/// Error code of a refused deletion: another cluster has the tag in its document.
pub const TAG_RETAINED: &str = "TAG_RETAINED";
