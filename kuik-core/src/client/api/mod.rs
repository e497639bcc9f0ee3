//! Endpoints of one repository in the OCI distribution API: manifests, blobs, tags, referrers and uploads.

pub(crate) mod capacity;
pub(super) mod endpoint;
pub(super) mod headers;
pub(super) mod push;
pub(super) mod request;
pub(super) mod retention;
pub(super) mod status;
mod upload;
