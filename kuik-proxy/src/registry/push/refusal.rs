//! Error responses to pushes: the codes of the OCI distribution specification, "Error Codes".

use http::{StatusCode, header};
use kuik_core::{
    content::{Digest, InvalidManifest, SourceError, SourceErrorKind},
    error::chain,
};

use super::{content_range::InvalidChunkRange, operation::NoOperation, receive::ReceiveError};
use crate::service::Refusal;

/// `Retry-After` in seconds if there are too many uploads.
const RETRY_AFTER_SECONDS: &str = "2";

/// Maximum number of missing digests named in one message.
const NAMED: usize = 8;

pub(super) fn no_operation(error: &NoOperation) -> Refusal {
    match error {
        NoOperation::Route(error) => Refusal::route(error),
        NoOperation::UploadName => {
            Refusal::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "upload unknown to this registry")
        }
        NoOperation::NoDigest => {
            let message = "missing parameter digest: it is required to finish an upload";
            Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
        }
        NoOperation::Method(allowed) => {
            let message = format!("method not allowed: only {allowed} are supported");
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message).with(header::ALLOW, *allowed)
        }
    }
}

/// Maps the failure to receive a body; `code` is the error code of its operation.
pub(super) fn received(error: &ReceiveError, code: &'static str) -> Refusal {
    let status = match error {
        ReceiveError::Idle(_) | ReceiveError::Slow(_) => StatusCode::REQUEST_TIMEOUT,
        ReceiveError::Broken(_) => StatusCode::BAD_REQUEST,
        ReceiveError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
    };
    let code = if matches!(error, ReceiveError::TooLarge(_)) { "SIZE_INVALID" } else { code };
    let refusal = Refusal::new(status, code, chain(error));
    // The rest of the body is not read, so no further request on this connection can be.
    if status == StatusCode::REQUEST_TIMEOUT { refusal.with(header::CONNECTION, "close") } else { refusal }
}

pub(super) fn too_many_uploads(most: usize) -> Refusal {
    let message = format!("too many uploads: at most {most} may run concurrently");
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
        .with(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
}

/// Maps a store error during an upload.
pub(super) fn upload(error: &SourceError) -> Refusal {
    match error.kind() {
        SourceErrorKind::InvalidContent => {
            Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.chain())
        }
        _ => Refusal::source(error, "BLOB_UPLOAD_UNKNOWN"),
    }
}

pub(super) fn unknown_algorithm(digest: &Digest) -> Refusal {
    let message =
        format!("digest algorithm {} is not supported: use sha256 or sha512", digest.algorithm_name());
    Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
}

pub(super) fn chunk_range(error: InvalidChunkRange) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", error.to_string())
}

/// Refuses a chunk that does not start at the upload's offset.
pub(super) fn out_of_order(first: u64, offset: u64) -> Refusal {
    let message = format!("the chunk starts at byte {first}, expected byte {offset}");
    Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
}

pub(super) fn wrong_length(promised: u64, found: u64) -> Refusal {
    let message = format!("the Content-Range covers {promised} bytes, and the body has {found}");
    Refusal::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", message)
}

pub(super) fn manifest(error: &InvalidManifest) -> Refusal {
    let status = match error {
        InvalidManifest::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, "MANIFEST_INVALID", chain(error))
}

pub(super) fn manifest_digest(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", chain(error))
}

/// The blob is not stored here, and upstream could not be asked for it.
pub(super) fn unknown() -> Refusal {
    let message = "blob unknown to this registry, and its upstream is unavailable";
    Refusal::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message)
}

/// Refuses a manifest whose references are missing.
pub(super) fn missing(digests: &[&Digest]) -> Refusal {
    let named: Vec<_> = digests.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match digests.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("the repository lacks {}{more}", named.join(", "));
    Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", message)
}
