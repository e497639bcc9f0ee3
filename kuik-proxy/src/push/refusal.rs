//! What a client is told when it cannot push: the codes of the OCI distribution specification, "Error Codes".

use http::{StatusCode, header};
use kuik_core::content::{Digest, InvalidManifest, SourceError, SourceErrorKind};

use super::{content_range::InvalidChunkRange, operation::NoOperation, receive::ReceiveError};
use crate::service::Refusal;

/// After how many seconds a client that was one too many may try again.
const RETRY_AFTER_SECONDS: &str = "2";

/// At most so many missing digests are named in one message.
const NAMED: usize = 8;

pub(super) fn no_operation(error: &NoOperation) -> Refusal {
    match error {
        NoOperation::Route(error) => Refusal::route(error),
        NoOperation::UploadName => {
            Refusal::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        }
        NoOperation::NoDigest => {
            let message = "an upload ends with the parameter digest";
            Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
        }
        NoOperation::Method(allowed) => {
            let message = format!("only {allowed} are answered here");
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message).with(header::ALLOW, *allowed)
        }
    }
}

/// What a body that did not arrive means; `code` is that of what it was for.
pub(super) fn received(error: &ReceiveError, code: &'static str) -> Refusal {
    let status = match error {
        ReceiveError::Idle(_) | ReceiveError::Slow(_) => StatusCode::REQUEST_TIMEOUT,
        ReceiveError::Broken(_) => StatusCode::BAD_REQUEST,
        ReceiveError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
    };
    let code = if matches!(error, ReceiveError::TooLarge(_)) { "SIZE_INVALID" } else { code };
    let refusal = Refusal::new(status, code, chain(error));
    // The rest of the body is not waited for, so nothing that comes after it can be read.
    if status == StatusCode::REQUEST_TIMEOUT { refusal.with(header::CONNECTION, "close") } else { refusal }
}

pub(super) fn too_many_uploads(most: usize) -> Refusal {
    let message = format!("{most} uploads are running, and that is all that may");
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
        .with(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
}

/// What a store that fails an upload means.
pub(super) fn upload(error: &SourceError) -> Refusal {
    match error.kind() {
        SourceErrorKind::InvalidContent => {
            Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.chain())
        }
        _ => Refusal::source(error, "BLOB_UPLOAD_UNKNOWN"),
    }
}

pub(super) fn unknown_algorithm(digest: &Digest) -> Refusal {
    let message = format!("{} cannot be verified: sha256 and sha512 can", digest.algorithm_name());
    Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
}

pub(super) fn chunk_range(error: InvalidChunkRange) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", error.to_string())
}

/// A chunk that does not begin where the upload has come to.
pub(super) fn out_of_order(first: u64, offset: u64) -> Refusal {
    let message = format!("the chunk begins at byte {first}, and byte {offset} is the next");
    Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
}

pub(super) fn wrong_length(promised: u64, found: u64) -> Refusal {
    let message = format!("the Content-Range is of {promised} bytes, and the body has {found}");
    Refusal::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", message)
}

pub(super) fn manifest(error: &InvalidManifest) -> Refusal {
    let status = match error {
        InvalidManifest::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, "MANIFEST_INVALID", chain(error))
}

pub(super) fn manifest_digest(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", chain(error))
}

/// Nothing here knows of it, and nobody else could be asked.
pub(super) fn unknown() -> Refusal {
    let message = "it is not here, and its registry could not be asked for it";
    Refusal::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message)
}

/// What a manifest refers to is not there.
pub(super) fn missing(digests: &[&Digest]) -> Refusal {
    let named: Vec<_> = digests.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match digests.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("the repository does not have {}{more}", named.join(", "));
    Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", message)
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |chain, cause| format!("{chain}: {cause}"))
}
