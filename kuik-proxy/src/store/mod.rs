//! Content stores. All backends use the storage layout of Docker's registry, version 2, so that an existing volume or
//! bucket is adopted in place and can be handed back.
//!
//! `layout` names files and objects; the backends are `filesystem`, and `object` (feature `object-storage`).

mod bucket_options;
mod filesystem;
mod layout;
mod map;
#[cfg(feature = "object-storage")]
mod object;
mod spool;
mod started_at;

use std::io;

use kuik_core::content::{SourceError, SourceErrorKind};

pub use bucket_options::{BucketOptions, Provider};
pub use filesystem::{FilesystemStore, OpenError};
#[cfg(feature = "object-storage")]
pub use object::{InvalidBucket, ObjectStorage};

/// Stored content does not match its digest.
///
/// It is the cause of a `NotFound`: the caller must fetch the content again, exactly as if it were absent.
#[derive(Debug, thiserror::Error)]
#[error("what the store has under this digest is damaged")]
struct Damaged(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Runs blocking disk work on tokio's pool; a failure names what was attempted.
async fn blocking<T: Send + 'static>(
    attempted: impl Into<String>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SourceError> {
    let attempted = attempted.into();
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if filesystem::is_absent(&error) => Err(match error.into_inner() {
            Some(cause) => SourceError::caused_by(SourceErrorKind::NotFound, attempted, cause),
            None => SourceError::new(SourceErrorKind::NotFound, attempted),
        }),
        Ok(Err(error)) => Err(SourceError::storage(attempted, error)),
        Err(panicked) => Err(SourceError::storage(attempted, io::Error::other(panicked))),
    }
}
